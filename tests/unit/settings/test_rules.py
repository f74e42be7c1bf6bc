"""Which rules and ignores are in force, the judge that they make, and what is seldom meant."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from parts import avideo
from parts.judging import avideo_judge

from relay.core.envelope import Recipient
from relay.core.ruling import Action, Ruling
from relay.settings import Settings
from relay.settings.effective import ignores, rules
from relay.settings.presets import names, preset
from relay.settings.rules import build_judge
from relay.settings.sources import load
from relay.settings.warnings import warnings

if TYPE_CHECKING:
    from pathlib import Path

BOB = Recipient("bob@example.org")


def _settings(*own: dict[str, Any], **dedup: Any) -> Settings:
    return Settings.model_validate({"rules": own, "dedup": dedup})


def _rule(**keys: Any) -> dict[str, Any]:
    return {"name": "mine", "action": "dedupe", **keys}


def _named(settings: Settings) -> list[tuple[str, str, str]]:
    return [(found.table.name, found.preset, found.replaces) for found in rules(settings)]


def test_own_rules_come_before_those_of_the_presets_in_their_order() -> None:
    found = _named(_settings(_rule(subject="a"), presets=["wordpress", "avideo"]))
    assert found[0] == ("mine", "", "")
    assert found[1:] == [(rule.name, name, "") for name in ("wordpress", "avideo") for rule in preset(name).rules]


def test_no_preset_no_rule() -> None:
    settings = _settings(presets=[])
    assert (rules(settings), ignores(settings)) == ((), ())


def test_an_own_rule_takes_the_place_of_a_presets_rule_of_its_name() -> None:
    settings = _settings(_rule(name="avideo: test mail", subject="^Probe"))
    found = _named(settings)
    assert found[0] == ("avideo: test mail", "", "avideo")
    assert ("avideo: test mail", "avideo", "") not in found
    assert len(found) == sum(len(preset(name).rules) for name in settings.dedup.presets)
    judge = build_judge(settings)
    subjects = {b"Message From Site Tube (Your Site test)": "avideo: contact form", b"Probe 7": "avideo: test mail"}
    for subject, name in subjects.items():
        assert [rule.name for rule in judge(b"Subject: %b\r\n\r\nHello" % subject, b"").matching_rules] == [name]


def test_an_own_ignore_takes_the_place_of_a_presets_ignore_of_its_name() -> None:
    settings = Settings.model_validate({"ignore": [{"name": "avideo: image cache", "text": "never there"}]})
    assert [(found.table.label, found.preset) for found in ignores(settings)] == [
        ("avideo: image cache", ""),
        ("avideo: image cache, bare number", "avideo"),
    ]
    first, again = (
        build_judge(settings)(avideo.notification(cache=cache), b"").fingerprint(BOB)
        for cache in ("?cache=1741234567", "?cache=1741234568")
    )
    assert first != again


def test_the_judge_has_window_and_mode_of_the_service() -> None:
    content = avideo.going_live()
    assert build_judge(_settings(window="1h"))(content, b"").ruling(BOB) == Ruling("default", Action.DEDUPE, 3600)
    assert build_judge(_settings(mode="observe"))(content, b"").ruling(BOB) == Ruling("default", Action.OBSERVE, 600)
    assert avideo_judge(0)(content, b"").ruling(BOB).action is Action.EXEMPT
    assert avideo_judge()(content, b"").ruling(BOB) == Ruling("default", Action.DEDUPE, 600)


def test_without_a_window_the_presets_suppress_nothing() -> None:
    for content in (avideo.notification(), avideo.comment("x"), b"Subject: [RESOLVED] x\r\n\r\n"):
        assert avideo_judge(0)(content, b"").ruling(BOB) == Ruling.exempt("window is 0")


def test_an_own_rule_has_its_own_window_and_ignores() -> None:
    rule = _rule(subject="^New comment", window="2h", ignore=[{"text": "[0-9]+ views"}])
    judge = build_judge(_settings(rule))
    first, again = (judge(avideo.comment(text), b"") for text in ("Seen 5 views", "Seen 6 views"))
    assert first.ruling(BOB) == Ruling("mine", Action.DEDUPE, 7200)
    assert first.fingerprint(BOB) == again.fingerprint(BOB)
    other = judge(avideo.comment("Heard 5 views"), b"")
    assert first.fingerprint(BOB) != other.fingerprint(BOB)


def test_one_rule_may_observe_alone() -> None:
    judge = build_judge(_settings(_rule(subject="^New comment", action="observe")))
    assert judge(avideo.comment("a"), b"").ruling(BOB).action is Action.OBSERVE
    assert judge(avideo.going_live(), b"").ruling(BOB).action is Action.DEDUPE


@pytest.mark.parametrize("name", names())
def test_the_presets_give_no_warning(name: str) -> None:
    assert warnings(_settings(presets=[name])) == []


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        (
            ["avidoe"],
            f'"avidoe" is not known; write {" or ".join(map(json.dumps, names()))}, or \\[\\] for none',
        ),
        (["avideo", "avideo"], '"avideo" is listed twice; write it once'),
        (3, 'not a list; write for example \\["avideo"\\]'),
    ],
)
def test_a_wrong_preset_names_those_that_are_there(value: object, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        _settings(presets=value)


@pytest.mark.parametrize(
    ("own", "doubt"),
    [
        (
            [_rule(subject="a"), _rule(name="other", subject="a", **{"from": "b"})],
            'rule 1 "mine" hides rule "other", which never matches; move it below, or',
        ),
        (
            [_rule(subject=["a", "b"]), _rule(name="other", subject="b")],
            'rule 1 "mine" hides rule "other"',
        ),
        (
            [_rule(header={"X-A": "a"}), _rule(name="other", header={"x-a": "a"}, subject="b")],
            'rule 1 "mine" hides rule "other"',
        ),
        (
            [_rule(recipient="."), _rule(name="other", recipient="@a")],
            'rule 1 "mine" hides rule "other"',
        ),
        (
            [_rule(attachment=True), _rule(name="other", subject="a", attachment=True)],
            'rule 1 "mine" hides rule "other"',
        ),
        ([_rule(subject="a", window="9s")], 'rule 1 "mine": window is 9s: repeats often come later'),
        (
            [_rule(header={"Return-Path": "a"})],
            'rule 1 "mine": header.Return-Path is added after the relay by the final mail server; use reverse_path',
        ),
        ([_rule(header={"X-Original-To": "a"})], "use recipient"),
        (
            [_rule(recipient=["@a", r"^Marta@Example\.org$"])],
            r"rule 1 \"mine\": recipient = '\^Marta@Example\\.org\$': recipients are matched in lower case",
        ),
        ([_rule(reverse_path="^<alerts@ops>$")], "envelope addresses are matched without angle brackets"),
        ([_rule(recipient="@möbel.example$")], "international domains are matched in their xn-- form"),
        (
            [_rule(subject="a", ignore=[{"text": ".*"}])],
            'rule 1 "mine", ignore 1 "text .*": matches whole texts, so messages that differ only in text',
        ),
    ],
)
def test_a_rule_that_is_seldom_meant_is_told(own: list[dict[str, Any]], doubt: str) -> None:
    (text,) = warnings(_settings(*own, presets=[]))
    assert doubt in text or re.search(doubt, text)


def test_an_ignore_that_takes_whole_texts_is_told() -> None:
    (text,) = warnings(Settings.model_validate({"ignore": [{"text": "a+"}, {"name": "n", "text": "(?s).+"}]}))
    assert text.startswith('ignore 2 "n": matches whole texts')


def test_a_rule_that_hides_a_preset_is_told_once_with_all_rules_of_it() -> None:
    [told] = warnings(_settings(_rule(recipient="."), presets=["avideo"]), "file relay.toml")
    first, *others, last = [f'"{rule.name}"' for rule in preset("avideo").rules]
    assert told == (
        f'rule 1 "mine" (file relay.toml) hides rules {", ".join([first, *others])} and {last} of preset '
        "avideo, which never match; make it narrower"
    )


def test_a_doubt_about_a_rule_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('[[rules]]\nname = "a"\nsubject = "b"\naction = "dedupe"\nwindow = "1s"\n[[ignore]]\ntext = ".*"\n')
    rule, ignore = load(file, {"dedup.presets": "[]"}, {}).warnings
    assert rule.startswith(f'rule 1 "a" (file {file}): window is 1s: ')
    assert ignore.startswith(f'ignore 1 "text .*" (file {file}): matches whole texts')


@pytest.mark.parametrize(
    "own",
    [
        [_rule(subject="a", **{"from": "b"}), _rule(name="other", subject="a")],
        [_rule(subject="a"), _rule(name="other", subject=["a", "b"])],
        [_rule(subject="a", attachment=True), _rule(name="other", subject="a")],
        [_rule(header={"X-A": "a"}), _rule(name="other", header={"X-B": "a"})],
        [_rule(subject="a"), _rule(name="other", **{"from": "a"})],
        [_rule(subject="."), _rule(name="other", **{"from": "a"})],
        [_rule(recipient=r"(?i)^Marta@"), _rule(name="other", recipient=r"^[A-Z]\D\p{Lu}(?P<N>a)@")],
        [_rule(subject="a", ignore=[{"text": "[0-9]+"}, {"text": "Your code is .*"}])],
        [_rule(reverse_path="(?P<who>Alerts)@", recipient="^jürgen@")],
    ],
)
def test_what_is_meant_gives_no_warning(own: list[dict[str, Any]]) -> None:
    assert warnings(_settings(*own)) == []


def test_a_key_header_is_matched_in_any_case() -> None:
    judge = build_judge(_settings(key_header=["X-Idempotency-Key", "resend-idempotency-key"]))
    for name in ("X-IDEMPOTENCY-KEY", "Resend-Idempotency-Key"):
        mails = (f"From: a@b\r\n{name}: 7\r\nSubject: {subject}\r\n\r\n".encode() for subject in ("Hello", "Bye"))
        assert len({judge(mail, b"").fingerprint(BOB) for mail in mails}) == 1


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (["X A"], '"X A" is not the name of a header field; write "X-Idempotency-Key"'),
        (["X-A", "x-a"], "X-A is listed twice; write it once"),
        (["From"], "From says nothing about repeats"),
        (["Content-ID"], "Content-ID says nothing about repeats"),
        (7, "not a list; write for example"),
    ],
)
def test_a_wrong_key_header_is_refused_with_a_remedy(value: object, error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        _settings(key_header=value)
