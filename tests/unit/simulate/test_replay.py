"""What the messages of an archive come to when they are played by their dates."""

from __future__ import annotations

import dataclasses
import datetime as dt
import tracemalloc
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts.archived import Delivered, as_mbox, notices
from parts.avideo import NOW, Sending, comment, notification, recovery
from parts.avideo_pairs import DIFFERENT_PAIRS, EQUAL_PAIRS
from parts.corpus import MESSAGES
from parts.judging import avideo_judge, judge_without_presets

from relay.core.claim import Fingerprint
from relay.core.ruling import Action, Repeats
from relay.judge.fingerprint.normal_form import Field
from relay.judge.judge import Judge
from relay.judge.rules.pattern import Pattern
from relay.judge.rules.rule import Condition, MatchTarget, Rule
from relay.simulate.archive import Archive
from relay.simulate.mail_between import _MOST_REMEMBERED as _MOST_SENDERS
from relay.simulate.mail_between import MailBetween
from relay.simulate.near_misses import _MOST_GROUPS, _MOST_REMEMBERED, NearMisses, find_one_difference
from relay.simulate.replay import Replay
from relay.simulate.result import build_result
from relay.simulate.seen_messages import SeenMessages
from relay.simulate.text_report import report_lines

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from parts.avideo_pairs import Pair

ANNA, BERT = "anna@example.test", "bert@example.test"


def simulate(
    path: Path, messages: Iterable[Delivered], judge: Judge | None = None, window: float = 600
) -> dict[str, Any]:
    file = path / "mbox"
    file.write_bytes(as_mbox(messages))
    with Archive() as archive:
        for _ in archive.index([file]):
            pass
        replay = Replay(judge or judge_without_presets(window), archive, window)
        for number in archive.in_order():
            replay.play(number)
        return build_result(archive, replay, top=10)


def rules(found: dict[str, Any]) -> dict[str, tuple[str, int, int]]:
    return {row["rule"]: (row["action"], row["recipients"], row["repeats"]) for row in found["rules"]}


def windows(found: dict[str, Any]) -> dict[float, int]:
    return {row["window_seconds"]: row["recipients"] for row in found["windows"]}


def gaps(found: dict[str, Any]) -> dict[float, int]:
    return {row["from_seconds"]: row["copies"] for row in found["gaps"] if row["copies"]}


# Counts


STATES = Rule(
    "states",
    Action.DEDUPE,
    (Condition(MatchTarget.SUBJECT, (Pattern("^DiskFull"),)),),
    repeats=Repeats.CONSECUTIVE,
)


@pytest.mark.parametrize(
    ("order", "between", "repeats"),
    [
        ("aa", "DiskFull ends", 1),
        ("aba", "DiskFull ends", 0),
        ("aba", "A note", 0),
        ("abaa", "DiskFull ends", 1),
        ("abab", "x", 0),
    ],
)
def test_a_mail_in_between_makes_a_copy_no_repeat(tmp_path: Path, order: str, between: str, repeats: int) -> None:
    mails = {
        "a": b"Subject: DiskFull\r\nFrom: am@example.test\r\n\r\nfiring\r\n",
        "b": b"Subject: %s\r\nFrom: am@example.test\r\n\r\nresolved\r\n" % between.encode(),
    }
    sent = [Delivered(mails[letter], ANNA, at) for at, letter in enumerate(order)]
    sent.append(Delivered(mails["b"], BERT, 0.5))
    found = simulate(tmp_path, sent, Judge([STATES], window=600))
    assert rules(found)["states"][2] == repeats
    assert found["near_miss_pairs"] == 0
    plain = simulate(tmp_path, sent, Judge([dataclasses.replace(STATES, repeats=Repeats.WINDOW)], window=600))
    assert rules(plain)["states"][2] == order.count("a") - 1 + between.startswith("DiskFull") * max(
        0, order.count("b") - 1
    )


def test_copies_are_counted_by_window_and_gap(tmp_path: Path) -> None:
    copies = {0: 0.0, 1: 1, 2: 2, 3: 60, 4: 599, 5: 600, 6: 3599, 7: 40000}
    found = simulate(tmp_path, notices(10, copies=copies))
    assert found["messages"] == found["recipients"] == 18
    assert found["suppressed"]["recipients"] == found["suppressed"]["messages"] == 5
    assert rules(found) == {"default": ("dedupe", 18, 5)}
    assert windows(found) == {10: 3, 60: 3, 300: 4, 600: 5, 1800: 6, 3600: 7, 21600: 7, 86400: 8}
    assert gaps(found) == {0: 1, 1: 2, 60: 1, 300: 1, 600: 1, 1800: 1, 10800: 1}
    assert found["near_miss_pairs"] == 0
    assert found["groups_in_all"] == 8
    assert (found["from"], found["to"]) == tuple(f"{NOW + dt.timedelta(days):%FT%TZ}" for days in (0, 9))


def test_a_window_begins_at_the_accepted_copy_and_does_not_slide(tmp_path: Path) -> None:
    again = [Delivered(notification(sending=Sending(seed=f"{n}")), ANNA, 400.0 * n) for n in range(6)]
    found = simulate(tmp_path, again)
    assert found["suppressed"]["recipients"] == 3  # every second one
    assert windows(found)[1800.0] == 4
    [group] = found["groups"]
    assert group == {
        "subject": "New video: Sunrise 🎬 over the lake — part 2 - Example Tube",
        "messages": 5,
        "copies": 5,
        "repeats": 3,
        "mail_between": 0,
        "shortest_gap_seconds": 400.0,
        "longest_gap_seconds": 400.0,
    }


@pytest.mark.parametrize("pair", [*EQUAL_PAIRS, *DIFFERENT_PAIRS], ids=str)
def test_pairs_are_told_apart_as_readers_do(tmp_path: Path, pair: Pair) -> None:
    first = [Delivered(pair.a, to, 0) for to in pair.a_recipients]
    second = [Delivered(pair.b, to, 120) for to in pair.b_recipients]
    shared = set(pair.a_recipients) & set(pair.b_recipients)
    found = simulate(tmp_path, [*second, *first], avideo_judge())
    assert found["suppressed"]["recipients"] == (len(shared) if pair in EQUAL_PAIRS else 0)


def test_recipients_count_separately(tmp_path: Path) -> None:
    mail = notification()
    found = simulate(tmp_path, [Delivered(mail, ANNA, 0), Delivered(mail, BERT, 1), Delivered(mail, ANNA.upper(), 2)])
    assert found["suppressed"]["recipients"] == 1


def test_a_message_may_be_suppressed_in_part(tmp_path: Path) -> None:
    """Without the fields of a delivery the recipients are those of To and Cc. Cc counts, To does not."""
    head = "Date: Sun, 1 Mar 2026 10:5{0}:00 +0000\nFrom: a@b\nSubject: x\nTo: {1}, {2}\n\nhello\n"
    texts = [head.format(0, ANNA, BERT), head.format(1, BERT, "carl@example.test"), head.format(2, BERT, ANNA)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.eml").write_text(text)
    with Archive() as archive:
        assert list(archive.index([tmp_path])) == [1, 2, 3]
        replay = Replay(avideo_judge(), archive, 600)
        for number in archive.in_order():
            replay.play(number)
        found = build_result(archive, replay, top=1)
    assert found["suppressed"] == {
        "recipients": 3,
        "messages": 1,
        "messages_in_part": 1,
        "observed_recipients": 0,
        "mail_between": 0,
        "same_message_id": 0,
    }
    assert found["addressed_by"] == {"To and Cc": 3}
    assert found["reverse_paths"] == {"unknown": 3}


def test_bounces_and_exempt_mails_are_never_suppressed(tmp_path: Path) -> None:
    bounce = [Delivered(notification(), ANNA, n, sender="") for n in range(3)]
    tokens = [Delivered(recovery("61f0a9c4"), ANNA, n) for n in range(4)]
    found = simulate(tmp_path, [*bounce, *tokens], avideo_judge())
    assert found["suppressed"]["recipients"] == 0
    assert rules(found) == {"avideo: password recovery": ("exempt", 4, 0), "null reverse-path": ("exempt", 3, 0)}
    assert gaps(found) == {}


def test_each_rule_has_its_own_window_and_action(tmp_path: Path) -> None:
    def about(name: str, pattern: str, action: Action, window: float | None) -> Rule:
        return Rule(name, action, (Condition(MatchTarget.SUBJECT, (Pattern(pattern),)),), window=window)

    judge = Judge(
        [about("short", "Video 1", Action.DEDUPE, 10), about("watched", "Video 2", Action.OBSERVE, None)], window=600
    )
    sent = notices(4)
    again = [dataclasses.replace(message, after=message.after + 60) for message in sent]
    found = simulate(tmp_path, [*sent, *again], judge)
    assert rules(found) == {"short": ("dedupe", 2, 0), "watched": ("observe", 2, 1), "default": ("dedupe", 4, 2)}
    assert found["suppressed"]["recipients"] == 2
    assert found["suppressed"]["observed_recipients"] == 1
    # A rule with a window of its own keeps it, whatever dedup.window is.
    assert windows(found) == {10: 0, 60: 0, 300: 3, 600: 3, 1800: 3, 3600: 3, 21600: 3, 86400: 3}


def test_one_message_twice_in_the_archive_is_told_from_two(tmp_path: Path) -> None:
    mail, resent = notification(), notification(sending=Sending(seed="2"))
    found = simulate(tmp_path, [Delivered(mail, ANNA, 0), Delivered(mail, ANNA, 5), Delivered(resent, ANNA, 9)])
    assert found["suppressed"]["recipients"] == 2
    assert found["suppressed"]["same_message_id"] == 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 2000), min_size=1, max_size=30), st.integers(1, 1500))
def test_seen_messages_agree_with_a_plain_model(steps: list[int], window: int) -> None:
    dates = array("d", sorted(steps))
    seen = SeenMessages(dates, 3600.0)
    expected, accepted = [], None
    for at in dates:
        is_repeat = accepted is not None and at - accepted < window
        accepted = accepted if is_repeat else at
        expected.append(is_repeat)
    copies = [seen.see(Fingerprint("v1:0"), number, (window,)) for number in range(len(dates))]
    assert [copy is not None and copy.repeats[0] for copy in copies] == expected
    assert [copy.gap for copy in copies[1:] if copy] == [b - a for a, b in pairwise(dates)]


def test_seen_messages_forget_what_is_older_than_the_horizon() -> None:
    seen = SeenMessages(array("d", [0, 5, 10, 100]), 10.0)
    assert seen.see(Fingerprint("a"), 0, (1,)) is None
    assert seen.see(Fingerprint("b"), 1, (1,)) is None
    assert seen.see(Fingerprint("b"), 2, (1,)) is not None
    assert seen.see(Fingerprint("b"), 3, (1,)) is None
    assert len(seen._last) == 1
    assert not seen._accepted


def test_the_corpus_is_judged_as_the_judge_does(tmp_path: Path) -> None:
    """An independent count: of each fourth message, twice in a row, the second is a repeat, unless it is exempt."""
    judge = avideo_judge()
    mails = [path.read_bytes() for path in MESSAGES[::4]]
    repeats = 0
    folder = tmp_path / "mails"
    folder.mkdir()
    trace = "Received: by mx; {0}\nX-Original-To: {1}\nReturn-Path: <a@b>\n"
    for number, mail in enumerate(mails):
        newline = b"\n" if b"\r\n" not in mail else b"\r\n"
        for copy in range(2):
            date = f"Sun, 1 Mar 2026 {number // 60:02}:{number % 60:02}:{copy:02} +0000"
            head = trace.format(date, f"u{number}@example.test").encode().replace(b"\n", newline)
            (folder / f"{number}.{copy}.eml").write_bytes(head + mail)
        content = head + mail if newline == b"\r\n" else (head + mail).replace(b"\n", b"\r\n")
        judged = judge(content, b"a@b")
        action = judged.ruling(f"u{number}@example.test").action
        repeats += action == "dedupe"
    with Archive() as archive:
        for _ in archive.index([folder]):
            pass
        assert len(archive) == 2 * len(mails)
        replay = Replay(judge, archive, 600)
        for number in archive.in_order():
            replay.play(number)
    assert replay.totals.suppressed == repeats
    assert replay.by_gap[1] == repeats


# Other mail of the same sender in between


def state(word: str, *, sender: str = "Alerts") -> bytes:
    return f"From: {sender} <a@b.example>\r\nSubject: {word}\r\n\r\n{word}\r\n".encode()


@pytest.mark.parametrize(
    ("mails", "repeats", "between"),
    [
        ([(state("up"), ANNA), (state("down"), ANNA), (state("up"), ANNA)], 1, 1),
        ([(state("up"), ANNA), (state("up"), ANNA), (state("up"), ANNA)], 2, 0),
        ([(state("up"), ANNA), (state("down"), BERT), (state("up"), ANNA)], 1, 0),
        ([(state("up"), ANNA), (state("down", sender="Other"), ANNA), (state("up"), ANNA)], 1, 0),
        # As many as a rule with `repeats = "consecutive"` would forward.
        ([(state(word), ANNA) for word in ("up", "down", "up", "down")], 2, 2),
        ([(state(word), ANNA) for word in ("down", "up", "down", "up", "up")], 3, 2),
        # Before the accepted copy, not after it.
        ([(state("down"), ANNA), (state("up"), ANNA), (state("up"), ANNA)], 1, 0),
    ],
)
def test_repeats_with_other_mail_of_the_sender_in_between_are_counted(
    tmp_path: Path, mails: list[tuple[bytes, str]], repeats: int, between: int
) -> None:
    found = simulate(tmp_path, [Delivered(mail, to, 10.0 * number) for number, (mail, to) in enumerate(mails)])
    assert (found["suppressed"]["recipients"], found["suppressed"]["mail_between"]) == (repeats, between)
    assert sum(group["mail_between"] for group in found["groups"]) == between
    assert ('repeats = "consecutive"' in "\n".join(report_lines(found))) is bool(between)


def test_mail_between_is_remembered_with_bounded_memory() -> None:
    remembered = MailBetween()
    for number in range(_MOST_SENDERS + 500):
        remembered.accept(number, Fingerprint(f"{number}"))
    assert len(remembered._last) == len(remembered._copies) == _MOST_SENDERS
    assert not remembered.is_before(0, Fingerprint("0"))


# Near misses


def test_other_files_and_raw_bodies_are_no_near_misses(tmp_path: Path) -> None:
    head = "From: a@b\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: "
    pairs = (
        "application/octet-stream\r\n\r\n%s",
        "message/rfc822\r\n\r\nSubject: %s\r\n\r\nhello\r\n",
        "multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n%s",
    )
    for number, text in enumerate(pairs):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        mails = [(head + text % word).encode() for word in ("one", "two")]
        found = simulate(folder, [Delivered(mail, ANNA, 10.0 * n) for n, mail in enumerate(mails)])
        assert (found["suppressed"]["recipients"], found["near_miss_pairs"]) == (0, 0)


def test_a_message_without_a_subject_has_one_name(tmp_path: Path) -> None:
    mails = [b"From: a@b\r\n\r\nhello %b\r\n" % word for word in (b"1", b"2", b"2")]
    found = simulate(tmp_path, [Delivered(mail, ANNA, 10.0 * n) for n, mail in enumerate(mails)])
    text = "\n".join(report_lines(found))
    assert (found["near_miss_pairs"], text.count("(no subject)"), text.count("(none)")) == (1, 2, 0)


def test_a_new_kind_of_noise_is_a_near_miss_with_its_place(tmp_path: Path) -> None:
    mails = [notification(cache=f"?fresh=a{n}b", sending=Sending(seed=f"{n}")) for n in range(3)]
    found = simulate(tmp_path, [Delivered(mail, ANNA, 60.0 * n) for n, mail in enumerate(mails)])
    assert found["suppressed"]["recipients"] == 0
    assert found["near_miss_pairs"] == 2
    [kind] = found["near_misses"]
    assert (kind["pairs"], kind["field"], kind["places"]) == (2, "text", 1)
    assert kind["before"].endswith("_thumbsV2.jpg?fresh=")
    assert (kind["first"], kind["second"]) == ("a0b", "a1b")
    assert kind["after"].startswith("' width=")
    assert kind["shortest_gap_seconds"] == kind["longest_gap_seconds"] == 60


def test_one_word_in_plain_text_and_html_is_one_piece(tmp_path: Path) -> None:
    mails = [comment(f"I {word} it", sending=Sending(seed=word)) for word in ("like", "love")]
    found = simulate(tmp_path, [Delivered(mail, ANNA, n) for n, mail in enumerate(mails)])
    [kind] = found["near_misses"]
    assert (kind["first"], kind["second"], kind["places"]) == ("like", "love", 2)


def test_what_is_no_near_miss(tmp_path: Path) -> None:
    found = simulate(
        tmp_path,
        [
            Delivered(comment("I like it"), ANNA, 0),
            Delivered(comment("I love it"), BERT, 1),  # another recipient
            Delivered(comment("Where is the second part of it?" * 9), ANNA, 2),  # far more than one piece
            Delivered(comment("I like it"), ANNA, 3),  # a repeat
            Delivered(comment("I hate it"), BERT, 2 * 86400),  # long after
            Delivered(recovery("61f0a9c4"), ANNA, 5),
            Delivered(recovery("61f0a9c5"), ANNA, 6),  # exempt
        ],
        avideo_judge(),
    )
    assert found["near_miss_pairs"] == 0


def test_a_repeat_is_compared_with_nothing(tmp_path: Path) -> None:
    like, love = comment("I like it"), comment("I love it")
    found = simulate(tmp_path, [Delivered(mail, ANNA, n) for n, mail in enumerate([like, love, like, love])])
    assert (found["suppressed"]["recipients"], found["near_miss_pairs"]) == (2, 1)


def test_only_so_many_are_remembered_for_near_misses() -> None:
    near = NearMisses(lambda number: form(b"%d" % number))
    for number in range(_MOST_REMEMBERED + 1_500):
        near.add(number, 0.0, form(b"%d" % number), [(number, True), (-1, True)])
    assert len(near._last) == _MOST_REMEMBERED
    assert near.pairs == _MOST_REMEMBERED + 1_499
    for number in range(1_500):
        one, other = (form(b"%d%s" % (number, end)) for end in (b" a", b" b"))
        one_pair = NearMisses(lambda _, one=one: one)
        one_pair.groups = near.groups
        one_pair.add(0, 0.0, one, [(1, True)])
        one_pair.add(1, 0.0, other, [(1, True)])
    assert len(near.groups) == _MOST_GROUPS


def form(*texts: bytes) -> list[Field]:
    return [Field("text", text) for text in texts]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (form(b"a 1 b"), form(b"a 2 b"), (b"a ", b"1", b"2", b" b", 1)),
        (form(b"x=123&y=123"), form(b"x=923&y=923"), (b"x=", b"123", b"923", b"&y=123", 2)),
        (form(b"x=123&y=123"), form(b"x=923&y=123"), (b"x=", b"1", b"9", b"23&y=123", 1)),
        (form(b"hello"), form(b"hello, you"), (b"hello", b"", b", you", b"", 1)),
        (form(b"to A", b"<b>A</b>"), form(b"to B", b"<b>B</b>"), (b"to ", b"A", b"B", b"", 2)),
        (form(b"to A", b"<b>A</b>"), form(b"to B", b"<b>C</b>"), None),
        (form(b"a" * 200), form(b"b" * 200), None),
        (form(b"a"), form(b"a", b"b"), None),
        (form(b"a"), form(b"a"), None),
        (form("Grüße".encode()), form("Grüsse".encode()), (b"", "Grüße".encode(), b"Gr\xc3\xbcsse", b"", 1)),
    ],
)
def test_the_piece_that_differs_is_found(
    one: list[Field], other: list[Field], expected: tuple[Any, ...] | None
) -> None:
    found = find_one_difference(one, other)
    assert (found and tuple(found)[1:]) == expected


@settings(deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_two_texts_are_compared(one: bytes, other: bytes) -> None:
    found = find_one_difference(form(one), form(other))
    assert (found is None) == (one == other)


# Memory


def test_memory_is_a_little_for_each_message(tmp_path: Path) -> None:
    """Ten times as many messages of 10 KB, all within the window, take less than 2 KB more for each."""

    def peak(count: int) -> int:
        sent = [dataclasses.replace(message, after=number) for number, message in enumerate(notices(count))]
        (tmp_path / "mbox").write_bytes(as_mbox(sent))
        del sent
        tracemalloc.start()
        with Archive() as archive:
            for _ in archive.index([tmp_path / "mbox"]):
                pass
            replay = Replay(avideo_judge(), archive, 86400)
            for number in archive.in_order():
                replay.play(number)
            assert replay.totals.messages == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    few, many = peak(20), peak(200)
    assert (many - few) / 180 < 2048
