"""The checker of `make faults` finds what it is there to find: each rule against a history that breaks it."""

from __future__ import annotations

from collections import Counter

import pytest

from faults.checker import APART, KILLED, STALLED, UNCERTAIN, Verdict, check, exposed
from faults.history import Account, Attempt, Copy, Death, History, Outage, Stall, Suppression
from faults.receiver import answered

A, B = "a@example.test", "b@example.test"


class Story(History):
    """Builds a history step by step. Attempts, copies and records are numbered from 1."""

    def attempt(
        self, at: float, to: tuple[str, ...] = (A,), *, message: int = 1, relay: int = 0, code: int = 250
    ) -> str:
        name = f"m{message}.{len(self.attempts) + 1}"
        self.attempts[name] = Attempt(name, message, relay, at, to, at, code)
        self.messages = max(self.messages, message)
        return name

    def copy(
        self, attempt: str, at: float, *, confirmed: bool = True, to: tuple[str, ...] = (), came: float = 0
    ) -> str:
        record = f"r{len(self.copies) + 1}"
        of = self.attempts[attempt]
        self.copies.append(Copy(of.message, attempt, record, to or of.recipients, came or at, at, confirmed))
        return record

    def twice(self, *, confirmed: bool = True, code: int = 0, relays: tuple[int, int] = (0, 0)) -> None:
        """Send one message twice: its first copy is taken at 1 s, its second at 11 s."""
        self.copy(self.attempt(0.9, relay=relays[0], code=code), 1, confirmed=confirmed)
        self.copy(self.attempt(10.9, relay=relays[1]), 11)

    def add_account(
        self, relay: int = 0, *, metrics: bool = True, records: set[str] | None = None, **log: int
    ) -> Account:
        account = Account(relay, Counter(log), Counter(log) if metrics else None, records or set())
        self.accounts.append(account)
        return account


def found(story: History) -> tuple[int, int, dict[str, int], int]:
    verdict = check(story)
    return len(verdict.lost), len(verdict.doubled), dict(verdict.excused), len(verdict.wrong)


def assert_wrong(story: History, words: str) -> Verdict:
    verdict = check(story)
    assert any(words in sentence for sentence in verdict.wrong), verdict.wrong
    assert not verdict.clean
    return verdict


def test_a_run_without_a_fault_is_clean() -> None:
    story = Story()
    story.copy(story.attempt(0, (A, B)), 1)
    story.attempt(2, (A, B))
    account = story.add_account(forwarded=2, suppressed=2)
    account.suppressions.append(Suppression("s1", "m1.2", 2, ("r1",)))
    assert check(story).clean
    assert check(story).recipients == 2


# Lost


def test_a_promise_without_a_copy_is_a_loss() -> None:
    story = Story()
    story.attempt(0)
    assert found(story)[0] == 1


def test_a_promise_for_two_of_whom_one_got_it_is_a_loss() -> None:
    story = Story()
    story.copy(story.attempt(0, (A, B)), 1, to=(A,))
    assert found(story)[0] == 1


@pytest.mark.parametrize("code", [0, 251, 451, 550])
def test_what_was_not_promised_cannot_be_lost(code: int) -> None:
    story = Story()
    story.attempt(0, code=code)
    assert found(story)[0] == 0


def test_the_copy_of_another_message_does_not_help() -> None:
    story = Story()
    story.attempt(0)
    story.copy(story.attempt(0, message=2), 1)
    assert found(story)[0] == 1


# Doubled


def test_two_copies_are_a_double() -> None:
    story = Story()
    story.twice(code=250)
    assert found(story)[:3] == (0, 1, {})


def test_three_copies_are_two_doubles() -> None:
    story = Story()
    story.twice()
    story.copy(story.attempt(12), 13)
    assert found(story)[1] == 2


def test_a_withheld_reply_excuses_one_more_copy() -> None:
    story = Story()
    story.twice(confirmed=False)
    assert found(story)[1:3] == (0, {UNCERTAIN: 1})


def test_a_withheld_reply_excuses_no_third_copy() -> None:
    story = Story()
    story.twice(confirmed=False)
    story.copy(story.attempt(12), 13)
    assert found(story)[1:3] == (1, {UNCERTAIN: 1})


def test_nothing_excuses_a_relay_that_sends_again_by_itself() -> None:
    story = Story()
    name = story.attempt(0)
    story.copy(name, 1, confirmed=False)
    story.copy(name, 2)
    assert found(story)[1:3] == (1, {})


def test_a_withheld_reply_of_the_second_copy_excuses_nothing() -> None:
    story = Story()
    story.copy(story.attempt(0), 1)
    story.copy(story.attempt(2, code=0), 3, confirmed=False)
    assert found(story)[1] == 1


def test_two_on_their_way_at_once_are_excused_by_either() -> None:
    story = Story()
    story.copy(story.attempt(1), 5)
    story.copy(story.attempt(0, code=451), 6, confirmed=False, came=0.5)
    assert found(story)[1:3] == (0, {UNCERTAIN: 1})


def test_where_uncertain_ones_are_kept_nothing_excuses_a_second() -> None:
    story = Story(keep_uncertain=True)
    story.twice(confirmed=False)
    assert found(story)[1] == 1


def test_a_kill_excuses_what_could_not_be_written() -> None:
    story = Story(deaths=[Death(0, 1.001)])
    story.twice()
    assert found(story)[1:3] == (0, {KILLED: 1})


@pytest.mark.parametrize("at", [0.5, 1 + 3], ids=["before it was sent", "long after it was taken"])
def test_a_kill_at_another_time_excuses_nothing(at: float) -> None:
    story = Story(deaths=[Death(0, at)])
    story.twice()
    assert found(story)[1] == 1


def test_a_kill_excuses_nothing_that_was_answered() -> None:
    story = Story(deaths=[Death(0, 1.001)])
    story.twice(code=250)
    assert found(story)[1] == 1


def test_the_kill_of_another_relay_excuses_nothing() -> None:
    story = Story(relays=2, deaths=[Death(1, 1.001)])
    story.twice()
    assert found(story)[1] == 1


def test_relays_apart_excuse_a_copy_each() -> None:
    story = Story(relays=2, outages=[Outage(0.5, 5)])
    story.twice(code=250, relays=(0, 1))
    assert found(story)[1:3] == (0, {APART: 1})


def test_one_relay_is_never_apart_from_itself() -> None:
    story = Story(relays=2, outages=[Outage(0.5, 5)])
    story.twice(code=250)
    assert found(story)[1] == 1


def test_an_outage_that_is_long_over_or_came_later_excuses_nothing() -> None:
    for outage in (Outage(-9, -8), Outage(11.5, 12)):
        story = Story(relays=2, outages=[outage])
        story.twice(code=250, relays=(0, 1))
        assert found(story)[1] == 1


@pytest.mark.parametrize(("who", "length", "doubles"), [(0, 4, 0), (1, 4, 0), ("store", 4, 0), (0, 2, 1)])
def test_a_stall_excuses_only_when_longer_than_a_lease(who: int | str, length: float, doubles: int) -> None:
    story = Story(relays=2, lease=3, stalls=[Stall(who, 1, 1 + length)])
    story.twice(code=250, relays=(0, 1))
    assert found(story)[1:3] == (doubles, {} if doubles else {STALLED: 1})


def test_what_is_exempt_may_come_often() -> None:
    story = Story(exempt={1})
    story.twice()
    assert found(story)[1] == 0


@pytest.mark.parametrize(
    ("relays", "outage", "count"),
    [
        ((0, 1), Outage(0.5, 5), 2),
        ((0, 0), Outage(0.5, 5), 0),
        ((0, 1), Outage(50, 51), 0),
        ((0, 1), Outage(-9, -8), 0),
    ],
    ids=["one copy more for each recipient", "one relay alone", "an outage later", "an outage before"],
)
def test_what_an_outage_may_double_is_what_several_relays_were_handed_meanwhile(
    relays: tuple[int, int], outage: Outage, count: int
) -> None:
    story = Story(relays=2, outages=[outage])
    for relay in relays:
        story.attempts[story.attempt(1, (A, B), relay=relay)].ended = 2
    assert exposed(story) == count


def test_postfix_has_answered_a_mail_when_its_session_went_on() -> None:
    log = """
    postfix/smtpd[7]: connect from localhost[127.0.0.1]
    postfix/smtpd[7]: A1: client=localhost[127.0.0.1]
    postfix/smtpd[8]: B1: client=localhost[127.0.0.1]
    postfix/cleanup[9]: A1: message-id=<m1.1@client.example.test>
    postfix/smtpd[7]: A2: client=localhost[127.0.0.1]
    postfix/smtpd[7]: lost connection after END-OF-MESSAGE from localhost[127.0.0.1]
    postfix/smtpd[7]: disconnect from localhost[127.0.0.1] ehlo=1 mail=2 rcpt=2 data=2 commands=7
    postfix/smtpd[9]: C1: client=localhost[127.0.0.1]
    postfix/smtpd[9]: disconnect from localhost[127.0.0.1] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5
    """
    assert answered(log) == {"A1", "C1"}


# What the relay says


@pytest.mark.parametrize("log", [{"forwarded": 1}, {"forwarded": 2, "deferred": 1}, {}])
def test_outcomes_that_do_not_add_up_are_found(log: dict[str, int]) -> None:
    story = Story()
    story.copy(story.attempt(0, (A, B)), 1)
    story.add_account(**log)
    assert_wrong(story, "logged outcomes of")


def test_a_dot_without_a_reply_may_be_counted_or_not() -> None:
    for log in ({"forwarded": 1}, {"forwarded": 1, "deferred": 1}):
        story = Story()
        story.copy(story.attempt(0), 1)
        story.attempt(2, code=0)
        story.add_account(**log)
        assert check(story).clean


def test_a_killed_relay_may_have_counted_less_and_never_more() -> None:
    story = Story(deaths=[Death(0, 5)])
    story.copy(story.attempt(0), 1)
    story.add_account(metrics=False)
    assert check(story).clean
    story.accounts[0].log["forwarded"] = 2
    assert_wrong(story, "logged outcomes of")


def test_metrics_that_differ_from_the_log_are_found() -> None:
    story = Story()
    story.copy(story.attempt(0), 1)
    story.add_account(forwarded=1).metrics = Counter(deferred=1)
    assert_wrong(story, "/metrics says")


@pytest.mark.parametrize(("log_is_complete", "findings"), [(True, 1), (False, 0)])
def test_a_record_in_a_reply_may_be_missing_only_from_a_log_that_was_not_read(
    log_is_complete: bool, findings: int
) -> None:
    story = Story()
    story.copy(story.attempt(0), 1)
    story.attempts[story.attempt(2)].text = "2.0.0 Ok: duplicate, record r9, first sent 1 s ago"
    story.add_account(forwarded=1, suppressed=1).log_is_complete = log_is_complete
    assert len(check(story).wrong) == findings


@pytest.mark.parametrize("log", [{"deferred": 1}, {"suppressed": 1}])
def test_a_copy_that_was_not_forwarded_is_found(log: dict[str, int]) -> None:
    story = Story()
    story.copy(story.attempt(0), 1)
    story.add_account(**log)
    assert_wrong(story, "1 came from it")


def test_a_forwarded_one_that_did_not_come_is_found() -> None:
    story = Story()
    story.attempt(0, code=451)
    story.add_account(forwarded=1)
    assert_wrong(story, "0 came from it")


def test_an_uncertain_one_may_have_come() -> None:
    for came in (True, False):
        story = Story()
        name = story.attempt(0, code=451)
        if came:
            story.copy(name, 1, confirmed=False)
        story.add_account(uncertain=1)
        assert check(story).clean


@pytest.mark.parametrize(
    ("originals", "words"),
    [
        (("r9",), "which never arrived"),
        (("r2",), "was suppressed for message 2"),
        ((), "1 suppressed, its originals went to"),
        (("r3",), "1 suppressed, its originals went to"),
    ],
    ids=["no such record", "another message", "none named", "another recipient"],
)
def test_a_suppression_without_a_true_original_is_found(originals: tuple[str, ...], words: str) -> None:
    story = Story()
    story.copy(story.attempt(0), 1)
    story.copy(story.attempt(0, message=2), 1)
    story.copy(story.attempt(0, (B,)), 1)
    name = story.attempt(2)
    story.add_account(forwarded=3, suppressed=1).suppressions.append(Suppression("s", name, 1, originals))
    assert_wrong(story, words)


def test_a_reply_that_names_an_unknown_record_is_found() -> None:
    for records, clean in ((set(), False), ({"0a1b"}, True)):
        story = Story()
        story.copy(story.attempt(0), 1)
        repeat = story.attempts[story.attempt(2)]
        repeat.text = "2.0.0 Ok: duplicate, record 0a1b, first sent 1 s ago"
        account = story.add_account(forwarded=1, suppressed=1, records=records)
        account.suppressions.append(Suppression("0a1b", repeat.id, 1, ("r1",)))
        assert check(story).clean is clean


def test_what_is_left_over_and_what_never_went_out_is_found() -> None:
    assert_wrong(Story(left_over=["a key without an expiry"]), "a key without an expiry")
    assert_wrong(Story(given_up=["m1.1"]), "never delivered: m1.1")
