"""Rules: the values that each condition looks at, and the rule that wins."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.claim import Fingerprint
from relay.core.envelope import Recipient
from relay.core.ruling import Action, Repeats, Ruling
from relay.judge.fingerprint.sequence import in_epoch, sequence_name
from relay.judge.judge import Judge, MessageAnalysis
from relay.judge.rules.ignore import Text
from relay.judge.rules.links import find_images, find_links
from relay.judge.rules.matching import PatternPrefilter
from relay.judge.rules.pattern import Pattern, is_local, join_patterns
from relay.judge.rules.rule import NO_RULE, Condition, MatchTarget, Rule
from relay.judge.rules.text_matches import TextRules

ANNA, BOB = Recipient("anna@example.org"), Recipient("bob@shop.example")
SENDER = b"bounce+7@example.org"
MAIL = (
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_aus_dem_Garten?=\r\nFrom: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>\r\n"
    b"X-Priority: 1 (Highest)\r\nX-Kind: a\r\nX-Kind: b\r\nMIME-Version: 1.0\r\n"
)
LINK = b'Content-Type: text/html\r\n\r\n<a href="/pay?who=anna smith&amp;token=f00d">Pay</a>'


def rule(name: str = "mine", action: Action = Action.EXEMPT, **conditions: object) -> Rule:
    """Returns a rule with these conditions: `header_x_kind="a"` is one on a header field, a list means any of."""
    attachment = conditions.pop("attachment", None)
    window = conditions.pop("window", None)
    repeats = conditions.pop("repeats", Repeats.WINDOW)
    made = []
    for key, given_patterns in conditions.items():
        texts = given_patterns if isinstance(given_patterns, list) else [given_patterns]
        target, _, header = (
            (MatchTarget.HEADER.value, "", key[7:].replace("_", "-")) if key.startswith("header_") else (key, "", "")
        )
        made.append(Condition(MatchTarget(target.strip("_")), tuple(map(Pattern, texts)), header))
    return Rule(name, action, tuple(made), attachment, window, repeats=repeats)  # type: ignore[arg-type]


def analyse(
    *rules: Rule, content: bytes = MAIL + b"\r\nhello", window: float = 600, observe: bool = False
) -> MessageAnalysis:
    return Judge(rules, window=window, observe=observe)(content, SENDER)


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({"subject": "Grüße aus"}, True),
        ({"subject": "^grüße"}, False),
        ({"subject": "(?i)^GRÜSSE|^grüße"}, True),
        ({"subject": ["nothing", "Garten$"]}, True),
        ({"subject": "=\\?utf-8"}, False),
        ({"from_": "^Jörg <joerg@example\\.org>$"}, True),
        ({"from_": "bounce"}, False),
        ({"header_x_priority": "^1"}, True),
        ({"header_x_kind": "^b$"}, True),
        ({"header_x_kind": "^ab$"}, False),
        ({"header_x_none": ""}, False),
        ({"reverse_path": "^bounce\\+[0-9]@"}, True),
        ({"reverse_path": "joerg"}, False),
        ({"subject": "Garten", "reverse_path": "bounce"}, True),
        ({"subject": "Garten", "reverse_path": "joerg"}, False),
    ],
)
def test_conditions_match_values_as_a_reader_sees_them(conditions: dict[str, object], holds: bool) -> None:
    assert (analyse(rule(**conditions)).rule(ANNA).name == "mine") == holds


@pytest.mark.parametrize(
    ("link", "holds"),
    [
        ("token=f00d$", True),
        ("^/pay\\?", True),
        ("who=anna smith&token", True),
        ("who=anna smith&amp;token", False),
        ("Pay", False),
        ("\\Apay", False),
        ("smith\\z|f00d\\z", True),
    ],
)
def test_a_link_is_matched_as_it_would_be_followed(link: str, holds: bool) -> None:
    assert (analyse(rule(link=link), content=MAIL + LINK).rule(ANNA).name == "mine") == holds


@pytest.mark.parametrize(
    "link",
    [
        "https://t.example.org/recoverPass?user=anna&recoverpass=f00d",
        "https://t.example.org/recoverPass?user=anna&amp;recoverpass=f00d",
    ],
)
def test_a_link_is_found_in_every_encoding_and_place(link: str) -> None:
    html = f'<a href="{link}">Weiter</a>'
    head = "Subject: x\nMIME-Version: 1.0\n"
    qp = html.replace("=", "=3D").replace("example", "exa=\nmple")
    for content in (
        f"{head}\n{link}\n",
        f"{head}Content-Type: text/html; charset=utf-8\n\n{html}\n",
        f"{head}Content-Type: text/html; charset=x-none\n\n{html}\n",
        f"{head}Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n{qp}\n",
        f"{head}Content-Type: multipart/mixed\n\n--b\n\n{qp}\n",
        f"{head}Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n{html}\n--b--\n",
        f"nonsense\n{html}\n",
    ):
        octets = content.replace("\n", "\r\n").encode()
        assert analyse(rule(link="&recoverpass=f"), content=octets).rule(ANNA).name == "mine", content
        assert analyse(rule(link="&recoverpass=g"), content=octets).rule(ANNA) is NO_RULE, content


def test_ignores_do_not_hide_links_from_rules() -> None:
    everything = Text("all", Pattern("https://[^ ]+"))
    judge = Judge([rule(link="token=f00d")], [everything], window=600)
    analysis = judge(b"Subject: x\r\n\r\nsee https://t.example.org/?token=f00d now", b"")
    assert analysis.rule(ANNA).name == "mine"
    assert analysis.normal_form(analysis.rule(ANNA)).ignored


ATTACHED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\n%b\r\n\r\nx\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("part", "attached"),
    [
        (b"Content-Disposition: attachment", True),
        (b"Content-Disposition: inline; filename=a.png", True),
        (b"Content-Type: image/png; name=a.png", True),
        (b"Content-Disposition: inline; filename*=utf-8''a.png", True),
        (b"Content-Type: text/html", False),
        (b"Content-Disposition: inline", False),
    ],
)
def test_which_parts_are_attachments(part: bytes, attached: bool) -> None:
    content = MAIL + ATTACHED % part
    assert (analyse(rule(attachment=True), content=content).rule(ANNA).name == "mine") == attached
    assert (analyse(rule(attachment=False), content=content).rule(ANNA).name == "mine") != attached


def test_the_first_rule_that_matches_wins() -> None:
    analysis = analyse(rule("other", subject="nothing"), rule("one", subject="Garten"), rule("two", subject="aus"))
    assert [found.name for found in analysis.matching_rules] == ["one"]
    assert analysis.rule(ANNA).name == analysis.rule(BOB).name == "one"


def test_a_condition_on_the_recipient_affects_that_recipient_only() -> None:
    shop = rule("shop", recipient="@shop\\.example$", subject="Garten")
    never = rule("never", recipient="@shop", subject="nothing")
    analysis = analyse(never, shop, rule("garden", Action.OBSERVE, subject="Garten", window=60.0))
    assert [found.name for found in analysis.matching_rules] == ["shop", "garden"]
    assert analysis.rule(BOB).name == "shop"
    assert analysis.ruling(BOB) == Ruling("shop", Action.EXEMPT, 0.0)
    assert analysis.ruling(ANNA) == Ruling("garden", Action.OBSERVE, 60.0)
    assert analyse(shop).rule(ANNA) is NO_RULE


def test_ignores_of_a_rule_apply_to_its_recipients_only() -> None:
    shop = Rule(
        "shop",
        Action.DEDUPE,
        (Condition(MatchTarget.RECIPIENT, (Pattern("@shop"),)),),
        ignore=(Text("n", Pattern("[0-9]+")),),
    )
    first, second = (analyse(shop, content=MAIL + b"\r\norder " + number) for number in (b"17", b"18"))
    assert first.fingerprint(BOB) == second.fingerprint(BOB)
    assert first.fingerprint(ANNA) != second.fingerprint(ANNA)
    assert [piece.piece for piece in first.normal_form(shop).ignored] == [b"17"]
    assert not first.normal_form(NO_RULE).ignored


def test_the_ruling_of_a_rule() -> None:
    dedupe = rule("mine", Action.DEDUPE, subject="Garten")
    assert analyse(dedupe).ruling(ANNA) == Ruling("mine", Action.DEDUPE, 600)
    assert analyse(dedupe, observe=True).ruling(ANNA) == Ruling("mine", Action.OBSERVE, 600)
    assert analyse(dedupe, window=0).ruling(ANNA) == Ruling.exempt("mine: window is 0")
    assert analyse(window=0).ruling(ANNA) == Ruling.exempt("window is 0")


PATTERNS = st.sampled_from(
    [
        "a",
        "^a",
        "b$",
        "^$",
        "a.b",
        "(?i)A",
        "[^a]b",
        "\\bab\\b",
        "\\Aa",
        "b\\z",
        "\\Qa",
        "(?s)a.*b",
        "(?-i)a$",
        "(?P<n>a)",
        ".",
        "",
    ]
)


@given(
    st.lists(PATTERNS, min_size=1, max_size=4),
    st.lists(st.text("aAb \n", max_size=4).map(str.encode), max_size=150),
)
def test_the_prefilter_keeps_all_values_that_a_rule_matches(patterns: list[str], values: list[bytes]) -> None:
    rules = [rule(f"rule {number}", subject=pattern) for number, pattern in enumerate(patterns)]
    prefilter = PatternPrefilter(rules)
    for each in rules:
        (condition,) = each.conditions
        assert condition.holds(prefilter.filter_values(condition, values)) == condition.holds(values)


@given(
    st.lists(PATTERNS, min_size=1, max_size=4),
    st.lists(
        st.builds(
            b"%b a://%b <a href=\"%b\"><img src='%b'> %b".__mod__,
            st.tuples(*[st.text("aAb&; \n'", max_size=4).map(str.encode)] * 5),
        )
    ).map(tuple),
)
def test_one_search_finds_each_rule_whose_links_or_images_match(patterns: list[str], texts: tuple[bytes, ...]) -> None:
    rules = [
        rule(f"{key} {number}", **{key: each}) for key in ("link", "image") for number, each in enumerate(patterns)
    ]
    matches = TextRules(rules).matches(texts)
    for each in rules:
        (condition,) = each.conditions
        find = find_links if condition.target is MatchTarget.LINK else find_images
        holds = condition.holds([value for text in texts for value in find(text)])
        assert matches.meets(condition) == holds
        if holds:
            assert each in matches.rules


@pytest.mark.parametrize("pattern", ["a[^c]b", "(?s)a.b", "a\\sb", "a\\Cb"])
def test_no_pattern_matches_across_two_links(pattern: str) -> None:
    page = b"Subject: x\r\nContent-Type: text/html\r\n\r\n<a href='%b'>a b</a> <a href='%b'></a>\r\n"
    matching = rule("across", link=pattern)
    assert analyse(matching, content=page % (b"a", b"b")).rule(ANNA).name != "across"
    assert analyse(matching, content=page % (b"a b", b"c")).rule(ANNA).name == "across"


def test_patterns_that_are_too_large_for_one_search_are_searched_one_by_one() -> None:
    rules = [rule(f"rule {number}", link=f"x{number}(?:[a-z]+ ){{1,400}}$|/y{number}z") for number in range(40)]
    assert analyse(*rules, content=b"Subject: x\r\n\r\na://b/y39z").rule(ANNA).name == "rule 39"


@given(PATTERNS, st.text("aAb \n", max_size=9).map(str.encode), st.integers(0, 9), st.integers(0, 9))
def test_a_local_pattern_that_matches_a_piece_matches_the_whole_text(
    text: str, whole: bytes, start: int, end: int
) -> None:
    pattern = Pattern(text)
    if is_local(text) and pattern.search(whole[start:end]):
        assert pattern.search(whole)


def test_patterns_that_cannot_be_joined_give_none() -> None:
    assert join_patterns(["a", "\\Qb"]) is None
    assert join_patterns(["a", "b\\z"]) is None
    assert join_patterns(["a", "b"]) is not None
    assert not is_local("\\[^a")
    assert is_local("[^a]\\$")


@pytest.mark.parametrize("unit", [b"a://b", b"href=a", b"a://hidden"])
def test_many_links_take_bounded_time(unit: bytes) -> None:
    start = time.process_time()
    content = b"Subject: x\r\n\r\n" + b"".join(b"%b%d " % (unit, number) for number in range(60_000))
    assert analyse(rule(link=["hidden$", "^nothing"]), content=content[: 1 << 20]).rule(ANNA) is NO_RULE
    assert time.process_time() - start < 3


# Sequences

CONSECUTIVE = Repeats.CONSECUTIVE


@pytest.mark.parametrize(
    ("conditions", "parts"),
    [
        ({"subject": "Garten"}, "anna bob"),
        ({"subject": "Garten", "attachment": True}, ""),
        ({"subject": "nothing"}, ""),
        ({"subject": "nothing", "from_": "joerg@"}, "anna bob"),
        ({"subject": "nothing", "reverse_path": "^bounce"}, "anna bob"),
        ({"subject": "nothing", "recipient": "^anna@"}, "anna"),
        ({"link": "nothing", "header_x_priority": "2", "from_": "joerg@", "recipient": "^bob@"}, "bob"),
        ({"attachment": True, "from_": "joerg@"}, "anna bob"),
        ({"subject": "Garten", "from_": "eve@"}, ""),
    ],
)
def test_what_takes_part_in_a_sequence_whatever_is_known(conditions: dict[str, object], parts: str) -> None:
    analysis = analyse(rule(action=Action.DEDUPE, repeats=CONSECUTIVE, **conditions))
    assert sorted(to.partition("@")[0] for to in analysis.taking_part([ANNA, BOB])) == parts.split()
    without = analyse(rule(action=Action.DEDUPE, **conditions))
    assert without.taking_part([ANNA, BOB]) == set()
    assert (without.sequence_time, without.sender) == (0.0, b"")


def test_an_exempt_message_takes_part_by_the_scope_of_a_rule_behind() -> None:
    states = rule(action=Action.DEDUPE, repeats=CONSECUTIVE, subject="nothing", from_="joerg@")
    analysis = analyse(rule("first", subject="Garten"), states)
    assert analysis.ruling(ANNA).action is Action.EXEMPT
    assert analysis.taking_part([ANNA]) == {ANNA}


def test_a_sequence_outlives_the_longest_window_of_a_consecutive_rule() -> None:
    rules = [
        rule(action=Action.DEDUPE, repeats=CONSECUTIVE, window=window, subject="a") for window in (None, 3600.0, 60.0)
    ]
    assert analyse(*rules, rule(action=Action.DEDUPE, window=7200.0, subject="b")).sequence_time == 3660
    assert analyse(rules[0]).sequence_time == 660
    assert analyse(rules[0], window=0).sequence_time == 0, "its messages are exempt"


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        (b"From: Joe <Joe@Example.org>", b"joe@example.org"),
        (b"From: =?utf-8?q?J=C3=B6rg_=3Ceve=40example=2Eorg=3E?= <joe@example.org>", b"joe@example.org"),
        (b'From: "<eve@example.org>" <joe@example.org>', b"joe@example.org"),
        (b"From: joe@example.org", b"joe@example.org"),
        (b"From: Joe <joe@example.org>\r\nFrom: Eve <eve@example.org>", b"joe@example.org\neve@example.org"),
        (b"From: \xff <joe@example.org>", b"joe@example.org"),
        (b"From:", b""),
        (b"Subject: none", b"bounce+7@example.org"),
    ],
)
def test_the_sender_of_a_sequence_is_the_address_in_from(header: bytes, sender: bytes) -> None:
    states = rule(action=Action.DEDUPE, repeats=CONSECUTIVE, recipient=".")
    assert analyse(states, content=header + b"\r\n\r\nhello").sender == sender


def test_sequences_differ_by_sender_and_recipient() -> None:
    names = {sequence_name(sender, to) for sender in (b"a", b"b") for to in (ANNA, BOB)}
    names |= {sequence_name(b"aanna", Recipient("@example.org"))}
    assert len(names) == 5
    assert all(re.fullmatch("q4:[0-9a-f]{40}", name) for name in names)


def test_a_fingerprint_in_an_epoch() -> None:
    keys = {in_epoch(Fingerprint(f"v4:{name}"), epoch) for name in "ab" for epoch in ("0" * 16, "1" * 16)}
    assert len(keys) == 4
    assert all(re.fullmatch("v4:[0-9a-f]{40}", key) for key in keys)
