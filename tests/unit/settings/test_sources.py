"""Where settings come from, which one wins, and what is said when one is wrong."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from relay.core.errors import SettingsError
from relay.settings import Loaded, Settings, passwords, sources
from relay.settings.addresses import HostPort
from relay.settings.model import KEYS, TABLES, environment_name
from relay.settings.passwords import store_password
from relay.settings.urls import MaildirUrl, RedisUrl, SqliteUrl

load = functools.partial(sources.load, default_file=Path("/nowhere/relay.toml"), user_id=1000)
"""As somebody on a machine that has no file of its own."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


def _error(file: Path | None = None, flags: dict[str, str] | None = None, **environ: str) -> str:
    with pytest.raises(SettingsError) as error:
        load(file, flags or {}, environ)
    assert error.value.__cause__ is None
    assert (
        error.value.__context__ is None
        or error.value.__suppress_context__
        or "sesame" not in repr(error.value.__context__)
    )
    return str(error.value)


def _window(loaded: Loaded) -> tuple[float, str]:
    return loaded.settings.dedup.window, loaded.provenance["dedup.window"]


def test_each_source_beats_the_ones_below_it(file: Path) -> None:
    file.write_text('[dedup]\nwindow = "1h"\n')
    environ = {"RELAY_DEDUP__WINDOW": "2h"}
    assert _window(load(None, {}, {})) == (600, "default")
    assert _window(load(file, {}, {})) == (3600, f"file {file}")
    assert _window(load(file, {}, environ)) == (7200, "environment RELAY_DEDUP__WINDOW")
    assert _window(load(file, {"--window": "3h"}, environ)) == (10800, "flag --window")
    both = {"dedup.window": "4h", "--window": "3h"}
    assert _window(load(file, both, environ)) == (14400, "flag --set")


def test_sources_add_up(file: Path) -> None:
    file.write_text('[listen]\nnetworks = ["10.0.0.0/8"]\n[upstream]\nverify_certificate = false\nconnections = 3\n')
    environ = {"RELAY_LOG__ADDRESSES": "yes", "RELAY_LIMITS__RECIPIENTS": "7"}
    flags = {"--listen": "[::]:0", "--http": "", "--observe": "observe", "limits.message_size": "1MiB"}
    settings = load(file, flags, environ).settings
    assert [str(network) for network in settings.listen.networks] == ["10.0.0.0/8"]
    assert (settings.upstream.verify_certificate, settings.upstream.connections) == (False, 3)
    assert (settings.log.addresses, settings.limits.recipients) == (True, 7)
    assert (settings.listen.address, settings.http.address) == (HostPort("::", 0), None)
    assert (settings.dedup.mode, settings.limits.message_size) == ("observe", 2**20)


def test_every_key_can_come_from_the_environment() -> None:
    loaded = load(None, {}, {environment_name("upstream.password"): "sesame"})
    environ = {
        environment_name(key): value
        for section, values in loaded.settings.model_dump(mode="json", exclude=set(TABLES)).items()
        for key, value in ((f"{section}.{name}", _as_text(value)) for name, value in values.items())
    }
    again = load(None, {}, environ)
    assert set(environ) == {environment_name(key) for key in KEYS}
    assert again.settings.dedup == loaded.settings.dedup
    assert all(again.provenance[key] == f"environment {environment_name(key)}" for key in KEYS)


def _as_text(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def test_a_list_in_the_environment_may_be_toml() -> None:
    settings = load(None, {}, {"RELAY_LISTEN__NETWORKS": '["10.0.0.0/8", "::1/128"]'}).settings
    assert [str(network) for network in settings.listen.networks] == ["10.0.0.0/8", "::1/128"]


def test_the_default_file_is_read_when_it_exists(file: Path) -> None:
    assert _window(load(None, {}, {}, default_file=file)) == (600, "default")
    file.write_text('[dedup]\nwindow = "1h"\n')
    assert _window(load(None, {}, {}, default_file=file)) == (3600, f"file {file}")


def test_the_environment_names_a_file_and_the_flag_beats_it(file: Path) -> None:
    file.write_text('[dedup]\nwindow = "1h"\n')
    assert _window(load(None, {}, {"RELAY_CONFIG": str(file)})) == (3600, f"file {file}")
    assert _window(load(file, {}, {"RELAY_CONFIG": "/nowhere"})) == (3600, f"file {file}")
    assert _window(load(None, {}, {"RELAY_CONFIG": ""})) == (600, "default")


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"STATE_DIRECTORY": "/s", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/s/relay.db"),
        ({"STATE_DIRECTORY": "/s:/t"}, "/s/relay.db"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/smtp-dedup-relay/relay.db"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/smtp-dedup-relay/relay.db"),
        ({"HOME": "/h"}, "/h/.local/state/smtp-dedup-relay/relay.db"),
        ({}, "/var/lib/smtp-dedup-relay/relay.db"),
    ],
)
def test_the_store_is_in_the_state_folder(environ: dict[str, str], path: str) -> None:
    loaded = load(None, {}, environ)
    assert loaded.settings.store.url == SqliteUrl(Path(path))
    assert loaded.provenance["store.url"] == "default"


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"HOME": "/root", "XDG_STATE_HOME": "/x"}, "/var/lib/smtp-dedup-relay/relay.db"),
        ({"HOME": "/root", "STATE_DIRECTORY": "/s"}, "/s/relay.db"),
    ],
)
def test_root_looks_at_the_store_of_the_service(environ: dict[str, str], path: str) -> None:
    assert load(None, {}, environ, user_id=0).settings.store.url == SqliteUrl(Path(path))


def test_a_relay_that_would_be_its_own_upstream_is_an_error() -> None:
    assert _error(flags={"--upstream": "smtp://localhost:2525"}) == (
        "upstream.url (smtp://localhost:2525) is the relay's own listen.address (127.0.0.1:2525): mail would loop; "
        "name the mail server"
    )


def test_all_wrong_values_are_named_at_once_with_source_and_mend(file: Path) -> None:
    file.write_text('[dedup]\nlease = "10ms"\non_uncertain = "maybe"\n[limits]\nrecipients = true\n')
    text = _error(file, {"--listen": "2525", "dedup.wait": "240"}, RELAY_DEDUP__WINDOW="10 apples")
    assert set(text.splitlines()) == {
        f'dedup.lease = "10ms" (file {file}): too short; write "1s" or more',
        f'dedup.on_uncertain = "maybe" (file {file}): not known; write "release" or "keep"',
        f"limits.recipients = true (file {file}): not a whole number above 0; write for example 20",
        'listen.address = "2525" (flag --listen): the port is missing; write HOST:PORT, for example "127.0.0.1:2525"',
        'dedup.wait = "240" (flag --set): "240" has no unit; write "240s" or "4m"',
        'dedup.window = "10 apples" (environment RELAY_DEDUP__WINDOW): not a duration; write for example "10m"',
    }


def test_a_timeout_of_nothing_is_refused() -> None:
    assert _error(flags={"store.timeout": "0"}).endswith('too short; write "1ms" or more')


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("[dedup]\nwindw = 1", "dedup.windw (file {}): unknown key; did you mean dedup.window?"),
        ("[deduq]\nlease = 1", "deduq.lease (file {}): unknown key; did you mean dedup.lease?"),
        ("[deduq]", 'deduq (file {}): unknown key; "relay config" lists all keys'),
        ("wait = '1m'", "wait (file {}): unknown key; did you mean dedup.wait?"),
        ("window = '1h'", "window (file {}): unknown key; did you mean dedup.window?"),
        ("[stor]\nurl = 'x'", "stor.url (file {}): unknown key; did you mean store.url?"),
        ("[upstrem]\ntimeout = 'x'", "upstrem.timeout (file {}): unknown key; did you mean upstream."),
        ("[upstream]\nwindow = '1h'", "upstream.window (file {}): unknown key; did you mean dedup.window?"),
        ("[rules]\nname = 'a'", "rules (file {}): this is a list of tables; write [[rules]] above the keys of each"),
        ("ignore = 3", "ignore (file {}): this is a list of tables; write [[ignore]] above the keys of each"),
        ("[[rule]]\nx = 1", "rule (file {}): unknown key; did you mean [[rules]]?"),
        ("[[dedup.rules]]\nx = 1", "dedup.rules (file {}): unknown key; did you mean [[rules]]?"),
        (
            "[record]\nkeep = 'mail'",
            'record.keep = "mail" (file {}): only a Maildir can keep messages; write maildir:PATH',
        ),
        ("[xyz]\nqqqq = 1", 'xyz.qqqq (file {}): unknown key; "relay config" lists all keys'),
        ("dedup = 3", "dedup (file {}): this is a section; write [dedup] and its keys below it"),
        ("[upstream.url]\npassword = 'sesame'", "upstream.url = {{…}} (file {}): the kind is missing; write smtp://"),
    ],
)
def test_unknown_keys_of_a_file_name_the_nearest(file: Path, toml: str, complaint: str) -> None:
    file.write_text(toml)
    assert _error(file).startswith(complaint.format(file))


def test_unknown_flags_and_variables_name_the_nearest() -> None:
    assert _error(flags={"dedup.windw": "1"}) == "dedup.windw (flag --set): unknown key; did you mean dedup.window?"
    assert _error(RELAY_DEDUP__WINDW="sesame") == (
        "RELAY_DEDUP__WINDW (environment): unknown variable; did you mean RELAY_DEDUP__WINDOW?"
    )
    assert _error(RELAY_QQ__ZZ="1") == "RELAY_QQ__ZZ (environment): unknown variable; unset it"


@pytest.mark.parametrize("name", ["rules", "rules.0.subject", "ignore", "ignore.text"])
def test_rules_and_ignores_stand_in_the_file_only(name: str) -> None:
    table = name.partition(".")[0]
    word = {"rules": "rules", "ignore": "ignores"}[table]
    mend = f"{word} can only be in the settings file; write [[{table}]] there"
    assert _error(flags={name: "x"}) == f"{name} (flag --set): {mend}"
    variable = f"RELAY_{name.upper().replace('.', '__')}"
    assert _error(**{variable: "x"}) == f"{variable} (environment): {mend}"


def test_records_have_their_keys() -> None:
    flags = {
        "record.keep_for": "7d",
        "record.keep": "maildir:/kept",
        "record.secret_file": "/s",
        "record.addresses": "no",
    }
    record = load(None, flags, {}).settings.record
    assert (record.keep_for, record.keep, record.secret_file) == (7 * 86400, MaildirUrl(Path("/kept")), Path("/s"))
    assert load(None, {"record.keep": ""}, {}).settings.record == Settings().record
    assert not Settings().record.addresses


def test_variables_of_container_tools_and_of_others_are_left_alone() -> None:
    environ = {
        "RELAY_PORT": "tcp://10.0.0.1:25",
        "RELAY_PORT_25_TCP": "tcp://10.0.0.1:25",
        "RELAY_PORT_25_TCP_ADDR": "10.0.0.1",
        "RELAY_SERVICE_HOST": "10.0.0.1",
        "RELAY_SERVICE_PORT_SMTP": "25",
        "RELAY_CONFIG": "",
        "PATH": "/bin",
    }
    assert load(None, {}, environ).warnings == ()


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("RELAY_DEDUP_WINDOW", "write RELAY_DEDUP__WINDOW"),
        ("RELAY_DEDUP_WINDW", "did you mean RELAY_DEDUP__WINDOW?"),
        ("RELAY_CONFIG_", "did you mean RELAY_CONFIG?"),
        ("RELAY_FOO", "settings are called RELAY_SECTION__KEY, the settings file RELAY_CONFIG"),
        ("RELAY_PORT", "settings are called RELAY_SECTION__KEY, the settings file RELAY_CONFIG"),
    ],
)
def test_other_variables_are_not_read_and_warned_of(name: str, mend: str) -> None:
    assert load(None, {}, {name: "5"}).warnings == (f"{name} is not read; {mend}",)


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        (b"[dedup]\nwindow = 10m\n", 'not TOML: .*line 2, .*text in "quotes"'),
        (b"x = " + b"[" * 5000, "not TOML"),
        (b'[[rules]]\nsubject = "a\\.b"\n', "not TOML: .*line 2, .*patterns in 'single quotes'"),
        (b'[dedup]\nwindow = "\xff"\n', "not UTF-8 text; save it as UTF-8"),
    ],
)
def test_a_file_that_is_not_toml_names_file_and_mend(file: Path, content: bytes, mend: str) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=mend) as error:
        load(file, {}, {})
    assert str(file) in str(error.value)


def test_a_file_may_begin_with_a_byte_order_mark(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf[dedup]\nwindow = "1h"\n')
    assert load(file, {}, {}).settings.dedup.window == 3600


def test_a_file_that_cannot_be_read_names_itself(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    mend = "name a file that exists and that this user may read"
    assert _error(missing) == f"settings file {missing}: No such file or directory; {mend}"
    assert _error(tmp_path) == f"settings file {tmp_path}: Is a directory; {mend}"


def test_a_default_file_that_cannot_be_looked_at_is_no_silence(file: Path) -> None:
    # A folder that may not be entered is open to root; this one nobody can enter.
    file.write_text("a file, not a folder")
    inside = file / "relay.toml"
    with pytest.raises(SettingsError, match=f"settings file {inside}: Not a directory; "):
        load(None, {}, {}, default_file=inside)


def test_the_password_comes_from_the_environment_only(file: Path) -> None:
    file.write_text('[upstream]\npassword = "sesame"\n')
    for text in (_error(file), _error(flags={"upstream.password": "sesame"})):
        assert "upstream.password_file, or set RELAY_UPSTREAM__PASSWORD" in text
        assert "sesame" not in text
    loaded = load(None, {"--upstream": "smtps://user@mail"}, {"RELAY_UPSTREAM__PASSWORD": "sesame"})
    assert passwords.upstream_password(loaded.settings) == "sesame"
    assert "sesame" not in repr(loaded)
    assert load(None, {}, {"RELAY_UPSTREAM__PASSWORD": ""}).settings.upstream.password is None


def test_no_error_shows_a_secret() -> None:
    flags = {"--upstream": "smtp://user:sesame@mail", "--store": "redis://:sesame@h/zero", "--listen": "u:sesame@h:1"}
    text = _error(flags=flags, RELAY_UPSTREAM__PASSWORD="sesame\udcff")
    assert "sesame" not in text
    assert {line.partition(" ")[0] for line in text.splitlines()} == {
        *("upstream.url", "upstream.password", "store.url", "listen.address"),
    }
    assert "not UTF-8 text; write it in UTF-8" in text


def test_a_value_that_is_not_utf8_can_be_shown() -> None:
    assert "\\udcff" in _error(flags={"upstream.ca_file": "/a\udcff"}).encode().decode()


def test_a_redis_password_reaches_the_store() -> None:
    loaded = load(None, {}, {"RELAY_STORE__URL": "redis://:sesame@h"})
    assert isinstance(loaded.settings.store.url, RedisUrl)
    assert loaded.settings.store.url.servers.password == "sesame"
    assert "sesame" not in repr(loaded)


@pytest.mark.parametrize("flag", ["--store", "store.url"])
@pytest.mark.parametrize(
    "url", ["redis://:sesame@h", "redis://u:sesame@h", "redis://h?pass=sesame", "redis://h#sesame"]
)
def test_a_store_password_in_a_flag_is_refused(flag: str, url: str) -> None:
    text = _error(flags={flag: url})
    assert "store.password_file, or set RELAY_STORE__URL" in text
    assert "sesame" not in text


def test_the_store_password_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("sesame\nnot this\n")
    loaded = load(None, {"--store": "redis://h", "store.password_file": str(file)}, {})
    assert store_password(loaded.settings) == "sesame"
    file.write_text("\n")
    with pytest.raises(SettingsError, match=r"store\.password_file .*first line is empty"):
        store_password(loaded.settings)


@pytest.mark.parametrize(("key", "value"), [("store.namespace", "staging"), ("store.password_file", "/x")])
def test_settings_of_redis_are_refused_for_other_stores(key: str, value: str) -> None:
    assert f"{key} is for Redis" in _error(flags={"--store": "memory:", key: value})
    assert load(None, {"--store": "redis://h", key: value}, {})


@pytest.mark.parametrize("namespace", ["a b", "a:b", "*", "a" * 33, "ä", "a\n"])
def test_a_namespace_is_part_of_a_key(namespace: str) -> None:
    assert "at most 32 letters" in _error(flags={"--store": "redis://h", "store.namespace": namespace})


def test_a_user_without_a_password_is_told_where_to_write_it() -> None:
    text = _error(flags={"--upstream": "smtps://user@mail"})
    assert text.startswith("upstream: upstream.url names a user, but there is no password; write it to a file")


def test_the_password_file_gives_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "password"
    settings = load(None, {"--upstream": "smtps://user@mail", "upstream.password_file": str(path)}, {}).settings
    path.write_text("ses ame\r\nsecond line\n")
    assert passwords.upstream_password(settings) == "ses ame"
    path.write_text("\nsesame")
    with pytest.raises(SettingsError, match="its first line is empty; write the password there"):
        passwords.upstream_password(settings)
    path.unlink()
    with pytest.raises(SettingsError, match=r"upstream.password_file .*No such file.*name a file that exists"):
        passwords.upstream_password(settings)
    assert passwords.upstream_password(Settings()) is None


@hypothesis_settings(deadline=None)
@given(st.sampled_from(sorted(KEYS)), st.text())
def test_any_text_is_settings_or_a_settings_error(key: str, text: str) -> None:
    problems, source = "", ""
    try:
        source = load(None, {key: text}, {}).provenance[key]
    except SettingsError as error:
        problems = str(error)
    assert problems.startswith((key, key.partition(".")[0])) or source == "flag --set"


def test_a_section_is_no_key() -> None:
    with pytest.raises(SettingsError) as error:
        load(None, {"dedup": "1", "upstream": "smtp://h"}, {})
    first, second = str(error.value).splitlines()
    assert first.startswith("dedup (flag --set): this is a section; its keys are dedup.window, dedup.mode, dedup.lease")
    assert ", upstream.password_file" in second
    assert "upstream.password," not in second
