"""`[[rules]]` and `[[ignore]]`: what they come to, and what is said when one is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from relay.core.errors import SettingsError
from relay.core.ruling import Action
from relay.judge.rules import ignore
from relay.judge.rules.ignore import UrlKind
from relay.judge.rules.pattern import Pattern
from relay.judge.rules.rule import Condition, MatchTarget
from relay.settings import sources
from relay.settings.model import TABLES
from relay.settings.tables import IgnoreTable, RuleTable

if TYPE_CHECKING:
    from pathlib import Path

_RULE = "[[rules]]\nname = 'mine'\nsubject = 'a'\naction = 'dedupe'\n"


def _errors(tmp_path: Path, toml: str) -> list[str]:
    file = tmp_path / "relay.toml"
    file.write_text(toml)
    with pytest.raises(SettingsError) as error:
        sources.load(file, {}, {})
    return str(error.value).replace(f" (file {file})", "").splitlines()


def test_a_rule_has_every_condition_and_the_dear_one_last() -> None:
    table = RuleTable.model_validate(
        {
            "name": " all ",
            "link": "l",
            "header": {"X-Priority": "^1", "Precedence": ["bulk", "list"]},
            "recipient": "r",
            "reverse_path": "p",
            "from": "f",
            "subject": ["s", "t"],
            "attachment": False,
            "action": "observe",
            "window": "1h",
            "ignore": [{"parameter": "utm_source", "url": "link"}],
        }
    )
    rule = table.rule()
    assert rule.conditions == (
        Condition(MatchTarget.SUBJECT, (Pattern("s"), Pattern("t"))),
        Condition(MatchTarget.FROM, (Pattern("f"),)),
        Condition(MatchTarget.REVERSE_PATH, (Pattern("p"),)),
        Condition(MatchTarget.RECIPIENT, (Pattern("r"),)),
        Condition(MatchTarget.HEADER, (Pattern("^1"),), "x-priority"),
        Condition(MatchTarget.HEADER, (Pattern("bulk"), Pattern("list")), "precedence"),
        Condition(MatchTarget.LINK, (Pattern("l"),)),
    )
    assert (rule.name, rule.action, rule.attachment, rule.window) == ("all", Action.OBSERVE, False, 3600)
    assert rule.ignore == (ignore.Parameter("parameter utm_source", "utm_source", UrlKind.LINK),)


def test_a_rule_may_ask_for_an_attachment_only() -> None:
    rule = RuleTable.model_validate({"name": "a", "attachment": True, "action": "exempt"}).rule()
    assert (rule.conditions, rule.attachment, rule.window, rule.ignore) == ((), True, None, ())


KINDS = "parameter, query, text, attribute, comment, header, calendar, pdf, part_parameter and content_id"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"parameter": "v"}, ignore.Parameter("parameter v", "v", UrlKind.ANY)),
        (
            {"name": "n", "parameter": "v", "url": "image", "value": "[0-9]", "path": r"\.jpg$"},
            ignore.Parameter("n", "v", UrlKind.IMAGE, Pattern("[0-9]"), Pattern(r"\.jpg$")),
        ),
        (
            {"query": "[0-9]+", "url": "link", "path": "p"},
            ignore.Query("query [0-9]+", Pattern("[0-9]+"), UrlKind.LINK, Pattern("p")),
        ),
        ({"text": "at .*"}, ignore.Text("text at .*", Pattern("at .*"))),
        (
            {"attribute": "Data-Time", "value": "[0-9]+"},
            ignore.Attribute("attribute data-time", "data-time", Pattern("[0-9]+")),
        ),
        ({"comment": "build"}, ignore.Comment("comment build", Pattern("build"))),
        ({"header": "X-Campaign"}, ignore.Header("header x-campaign", "x-campaign")),
        ({"name": "n", "header": "Subject"}, ignore.Header("n", "subject")),
    ],
)
def test_an_ignore_says_one_thing(values: dict[str, object], expected: ignore.Ignore) -> None:
    assert IgnoreTable.model_validate(values).ignore() == expected


@pytest.mark.parametrize(
    ("key", "mend"),
    [
        ("subject = '(?i)(foo'", """subject = '(?i)(foo': missing ) at "(?i)(foo\""""),
        ('subject = "it\'s ("', """subject = "it's (": missing )"""),
        ("from = ['a', 'b[']", """from = ['a', 'b[']: missing ] at "[\""""),
        ("subject = '^a(?=b)'", """at "(?="; RE2 has no look-ahead; use a second condition"""),
        ("subject = '^a(?!b)'", """at "(?!"; RE2 has no look-ahead; write a rule before this one"""),
        ("subject = '(?<=a)b'", """at "(?<="; RE2 has no look-behind; make the preceding text"""),
        (r"subject = '(a)\1'", r"""at "\1"; RE2 has no back-references; repeat the text itself"""),
        (r"subject = 'a\Z'", r"""at "\Z"; the end of the text is $ or \z"""),
        ("subject = 'a{2000}'", """invalid repetition size at "{2000}"; RE2 repeats 1,000 times at most"""),
        (
            "subject = 'a++'",
            """bad repetition operator at "++"; RE2 needs no possessive repetition; write one operator""",
        ),
        (r"subject = 'a\'", r"trailing \; write \\ for a backslash"),
        (
            "subject = '[^x]{1000}y'",
            "takes too long for some messages: its repetitions are 2005 steps when written out",
        ),
        (r"subject = '\pL{1000}\pN{1000}'", "pattern too large - compile failed; shorten it, or split it into a list"),
        ("subject = '(?P<a>b)(?P=a)'", 'at "(?P"; RE2 has no back-references'),
        ('subject = "\\bfoo"', r"contains an invisible character; write it in 'single quotes'"),
        ("recipient = '*@example.org'", 'at "*"; this is not a wildcard: write .* for any text'),
        (
            "subject = ''",
            "subject = '': an empty pattern matches everything; write '.' for any text, '^$' for empty text",
        ),
        ("subject = []", "subject = []: the list is empty; write a pattern, or remove the key"),
        ("subject = 3", "subject = 3: not text; write it in 'single quotes'"),
        ("subject = ['a', true]", "subject = ['a', true]: not text; write it in 'single quotes'"),
        ("header.X-A = '['", """header.X-A = '[': missing ] at "[\""""),
        ("header.'X A' = 'a'", "header.X A: not the name of a header field; write for example header.X-Priority"),
        ("header.Subject = 'a'", "header.Subject: this field has its own condition; write subject ="),
        ("header.FROM = 'a'", "header.FROM: this field has its own condition; write from ="),
        ("header = 'X-A'", "header = 'X-A': the field's name is missing; write for example header.X-Priority = '^1'"),
        ("header = {x-a = 'a', X-A = 'b'}", "header = {…}: x-a is listed twice; write one list of patterns"),
        ("attachment = 'yes'", "attachment = 'yes': not true or false; write one of these, without quotes"),
        ("attachment = 1", "attachment = 1: not true or false"),
        ("attachment = 'perhaps'", "attachment = 'perhaps': not true or false; write one of these, without quotes"),
        ("window = 0", 'window = 0: a window of 0 suppresses nothing; write action = "exempt" instead'),
        ("window = '600'", """window = '600': "600" has no unit; write "600s" or "10m\""""),
        ("sbject = 'a'", "unknown key sbject; did you mean subject?"),
        ("to = 'a'", "unknown key to; did you mean recipient?"),
        ("To = 'a'", "unknown key To; did you mean recipient?"),
        ("SUBJECT = 'a'", "unknown key SUBJECT; did you mean subject?"),
        ("sender = 'a'", "unknown key sender; did you mean reverse_path?"),
        ("from_ = 'a'", "unknown key from_; did you mean from?"),
        ("qqq = 'a'", "unknown key qqq; known are name, subject, from, reverse_path, recipient, header, link, "),
        ("parameter = 'a'", "unknown key parameter; it belongs into ignore = [ { parameter = ... } ]"),
        ("ignore = { text = 'a' }", 'ignore is not a list of tables; write ignore = [ { parameter = "utm_source" } ]'),
    ],
)
def test_a_wrong_key_of_a_rule_names_rule_and_key_and_quotes_the_part(tmp_path: Path, key: str, mend: str) -> None:
    rule = _RULE if not key.startswith("subject") else _RULE.replace("subject = 'a'\n", "")
    (line,) = _errors(tmp_path, f"{_RULE.replace('mine', 'first')}{rule}{key}\n")
    assert line.startswith('rule 2 "mine": ')
    assert mend in line


def test_of_a_long_value_enough_is_quoted_to_find_it(tmp_path: Path) -> None:
    (line,) = _errors(tmp_path, f"[[rules]]\nname = 'mine'\nsubject = '({'a' * 1_000_000}'\naction = 'exempt'\n")
    assert line.startswith('rule 1 "mine": subject = \'(aaaa')
    assert "…: missing )" in line
    assert line.endswith('aaa…"')
    assert len(line) < 600
    (line,) = _errors(tmp_path, f"[[rules]]\nname = '{'b' * 1_000_000}'\nsubject = 'a'\naction = 'exempt'\n")
    assert "not a name" in line
    assert len(line) < 600
    (line,) = _errors(tmp_path, f"[dedup]\nwindow = '{'c' * 1_000_000}'\n")
    assert "not a duration" in line
    assert len(line) < 400


@pytest.mark.parametrize(
    ("rule", "mend"),
    [
        ("subject = 'a'\naction = 'exempt'", 'rule 1: name is missing; write for example name = "invoices"'),
        ("name = 'x'\nsubject = 'a'", 'rule 1 "x": action is missing; write "exempt", "dedupe" or "observe"'),
        (
            "name = 'x'\nsubject = 'a'\naction = 'drop'",
            """rule 1 "x": action = 'drop': not known; write "exempt", "dedupe" or "observe\"""",
        ),
        (
            "name = 'x'\naction = 'dedupe'",
            "has no condition, so it would match every message; if that is intended, write recipient = '.'",
        ),
        (
            "name = 'x'\nsubject = 'a'\naction = 'exempt'\nwindow = '1h'",
            'rule 1 "x": window has no effect with action = "exempt"; leave it out',
        ),
        (
            "name = 'x'\nsubject = 'a'\naction = 'exempt'\nignore = []",
            'rule 1 "x": ignore has no effect with action = "exempt"; leave it out',
        ),
        (
            "name = 'x'\nsubject = 'a'\naction = 'exempt'\nrepeats = 'consecutive'",
            'rule 1 "x": repeats has no effect with action = "exempt"; leave it out',
        ),
        (
            "name = 'x'\nsubject = 'a'\naction = 'dedupe'\nrepeats = 'never'",
            """rule 1 "x": repeats = 'never': not known; write "window" or "consecutive\"""",
        ),
        (
            "name = 'Default'\nsubject = 'a'\naction = 'exempt'",
            'rule 1 "Default": name = \'Default\': "default" is the name of the rule that applies if',
        ),
        ('name = "a\\nb"\nsubject = "a"\naction = "exempt"', "not a name; write one line of at most 80 characters"),
        (f"name = '{'a' * 81}'\nsubject = 'a'\naction = 'exempt'", "not a name; write one line of at most 80"),
    ],
)
def test_a_wrong_rule_is_told_by_its_number(tmp_path: Path, rule: str, mend: str) -> None:
    (line,) = _errors(tmp_path, f"[[rules]]\n{rule}\n")
    assert mend in line


@pytest.mark.parametrize(
    ("table", "mend"),
    [
        (
            "name = 'x'",
            'ignore 1 "x": has nothing; write exactly one of ' + KINDS,
        ),
        ("header = 'X A'", "header = 'X A': not the name of a header field; write for example \"X-Campaign\""),
        ("header = 'Content-Type'", "header = 'Content-Type': this field says how to read the message, so it counts"),
        ("header = 'mime-version'", "header = 'mime-version': this field says how to read the message, so it counts"),
        ("header = 'X-A'\nvalue = 'a'", "ignore 1: value has no effect with header; leave it out"),
        ("text = 'a'\ncomment = 'b'", "ignore 1: has text and comment; write exactly one of parameter, "),
        ("attribute = 'data-t'", "ignore 1: attribute needs a value; write the pattern of what does not count"),
        ("calendar = 'DTSTAMP:'", 'not the name of a property; write for example "DTSTAMP"'),
        ("pdf = 'dates'", "pdf = 'dates': not known; write \"metadata\""),
        ("content_id = 'all'", "content_id = 'all': not known; write \"comment\""),
        ("part_parameter = 'file name'", 'not the name of a parameter; write for example "creation-date"'),
        ("part_parameter = 'Charset'", "charset never counts, only the text that it helps to decode"),
        ("calendar = 'DTSTAMP'\nvalue = '.'", "ignore 1: value has no effect with calendar; leave it out"),
        ("part_parameter = 'name'\npath = '.'", "ignore 1: path has no effect with part_parameter; leave it out"),
        ("text = 'a'\nurl = 'any'", "ignore 1: url has no effect with text; leave it out"),
        ("query = 'a'\nvalue = 'b'", "ignore 1: value has no effect with query; leave it out"),
        ("comment = 'a'\npath = 'b'", "ignore 1: path has no effect with comment; leave it out"),
        ("parameter = '?v='", "ignore 1: parameter = '?v=': not the name of a parameter; write for example \"cache\""),
        *((f"parameter = 'a{sign}'", "not the name of a parameter; write for example") for sign in "=&;?# "),
        ("attribute = 'a b'\nvalue = 'x'", "attribute = 'a b': not the name of an attribute; write for example"),
        *((f"attribute = 'a{sign}'\nvalue = 'x'", "not the name of an attribute") for sign in '"<>/='),
        ("text = 'a'\npath = 'b'", "ignore 1: path has no effect with text; leave it out"),
        ("parameter = 'v'\nurl = 'picture'", """url = 'picture': not known; write "image", "link" or "any\""""),
        ("parameter = 'v'\nvalue = '('", """ignore 1: value = '(': missing ) at "(\""""),
        ("paramter = 'v'", "ignore 1: unknown key paramter; did you mean parameter?"),
        ("name = 3\ntext = 'a'", "ignore 1: name = 3: not text; write it in 'single quotes'"),
    ],
)
def test_a_wrong_ignore_is_told_by_its_number(tmp_path: Path, table: str, mend: str) -> None:
    (line,) = _errors(tmp_path, f"[[ignore]]\n{table}\n")
    assert mend in line


def test_a_wrong_ignore_of_a_rule_is_told_with_the_rule(tmp_path: Path) -> None:
    lines = _errors(tmp_path, _RULE + "ignore = [ { text = 'a' }, { name = 'n', text = '[' }, { }, 3 ]\n")
    assert lines == [
        """rule 1 "mine", ignore 2 "n": text = '[': missing ] at "[\"""",
        'rule 1 "mine", ignore 3: has nothing; write exactly one of ' + KINDS,
        'rule 1 "mine", ignore 4: this is not a table; write { parameter = "utm_source" }, or keys below [[ignore]]',
    ]


def test_a_name_that_stands_twice_is_an_error_also_beside_others(tmp_path: Path) -> None:
    twice = 'rules: 1 and 2 are both called "mine"; give each a unique name'
    assert _errors(tmp_path, _RULE + _RULE) == [twice]
    assert _errors(tmp_path, _RULE + _RULE + "window = 0\n")[-1] == twice
    ignores = "[[ignore]]\nname = 'n'\ntext = 'a'\n"
    assert _errors(tmp_path, ignores * 2) == ['ignore: 1 and 2 are both called "n"; give each a unique name']


def test_ignores_need_no_name() -> None:
    made = [IgnoreTable.model_validate({"text": "a"}).label for _ in range(2)]
    assert made == ["text a", "text a"]


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    lines = _errors(
        tmp_path,
        f"[dedup]\npresets = ['avidoe']\nwindw = 1\n{_RULE}link = '['\n{_RULE}acton = 'a'\n[[ignore]]\ntext = ''\n",
    )
    assert [line.split(":")[0] for line in lines] == [
        "dedup.windw",
        'dedup.presets = ["avidoe"]',
        'rule 1 "mine"',
        'rule 2 "mine"',
        "rules",
        "ignore 1",
    ]


def test_every_key_is_described() -> None:
    for table in TABLES.values():
        assert table.__doc__
        assert all(len(field.description or "") > 20 for field in table.model_fields.values())


_values = st.recursive(
    st.text(max_size=8) | st.integers() | st.booleans() | st.sampled_from(["exempt", "dedupe", "a", "(?i)b", "any"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*RuleTable.model_fields, "from", *IgnoreTable.model_fields, "X-A", "zzz"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@hypothesis_settings(deadline=None)
@given(st.sampled_from(sorted(TABLES)), _values)
def test_any_value_is_settings_or_a_settings_error(kind: str, value: object) -> None:
    found = sources._GivenValues()
    found.given[kind] = (value, "file x")
    problems, tables = "", None
    try:
        tables = getattr(sources._settings(found.given, []), kind)
    except SettingsError as error:
        problems = str(error)
    assert "file x" in problems or len(tables) == len(value)
