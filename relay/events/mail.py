"""Events of messages, sessions and logins."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING, getLogger

from relay.events.event import ERROR_FIELD, PEER_FIELD, RECORD_FIELD, TRACEBACK_FIELD, Event

_LOG = getLogger("relay")
_REPLY_FIELDS = {"reply": "the code of the reply", "reply_text": "its text"}
_SIZE_FIELD = {"size": "its octets"}
_TIMES_FIELD = {"times": "how many since the last such line of this reason, a minute ago or more"}
_LOGIN_FIELD = {"login": "the user's name, with `log.addresses`"}

MESSAGE = Event(
    "message",
    INFO,
    _LOG,
    "Nothing. There is one for each message whose final dot arrived. `relay why` explains a suppression.",
    RECORD_FIELD
    | _REPLY_FIELDS
    | {
        "recipients": "how many had each outcome",
        "size_bytes": "octets of the content",
        "seconds": "from the final dot to the reply",
        "message_id": "the field Message-ID",
    }
    | PEER_FIELD,
    {
        "exempt": "why the rules exempt it",
        "rules": "the rules that decided, other than the default",
        "repeats": "the earlier messages: `record`, `message_id` and `age_seconds` of each",
        "login": "the user's name, with `log.addresses`",
        "not_suppressed": "why an equal copy is no repeat under a `consecutive` rule",
        "from": "the reverse-path, with `log.addresses`",
        "to": "each recipient and its outcome, with `log.addresses`",
    },
)
RECIPIENT_REFUSED = Event(
    "recipient refused",
    INFO,
    _LOG,
    "If all recipients of a message are refused, these lines are its only trace. The text of the reply has the mail "
    "server's reason; [replies](replies.md) lists the relay's own.",
    RECORD_FIELD | _REPLY_FIELDS | PEER_FIELD,
    {"to": "the recipient, with `log.addresses`"},
)
CLIENT_LEFT = Event(
    "client left before the final dot",
    INFO,
    _LOG,
    "Nothing was sent. If it comes often, compare the client's time limit with the time that the upstream takes.",
    RECORD_FIELD | PEER_FIELD,
)
NO_MEMORY = Event(
    "no memory for a message",
    INFO,
    _LOG,
    "The client received 452 and tries again. Raise `limits.memory`, or find out why the upstream is slow.",
    RECORD_FIELD | PEER_FIELD | _SIZE_FIELD,
)
JUDGEMENT_TIMED_OUT = Event(
    "judgement took too long",
    INFO,
    _LOG,
    "The message was forwarded, and its repeats pass. The machine is overloaded, or the message is built to be slow.",
    RECORD_FIELD | PEER_FIELD | _SIZE_FIELD,
)
_SESSION_FIELDS = {
    "peer": "the address of the last client",
    "reason": "as in the metric `smtp_dedup_sessions_refused_total`",
    "key": "the setting that decides",
    "reply": "the code of the reply",
    "sessions": "how many since the last such line of this reason, a minute ago or more",
}
SESSION_REFUSED = Event(
    "session refused",
    WARNING,
    _LOG,
    "If the client is yours, change the setting that the line names. One line a minute for each reason.",
    _SESSION_FIELDS,
)
SESSION_ENDED = Event(
    "session refused",
    INFO,
    _LOG,
    "Nothing: the session was idle (`limits.session_idle`) or lasted as long as it may (`limits.session_time`).",
    _SESSION_FIELDS,
)
LOGIN_REFUSED = Event(
    "login refused",
    WARNING,
    _LOG,
    "`credentials`: a wrong password in an application, or guesses; one line for each, so that a tool such as fail2ban "
    "can count them. [Logins](auth.md) explains the others.",
    PEER_FIELD | {"reason": "as in the metric `smtp_dedup_logins_total`"} | _TIMES_FIELD,
    _LOGIN_FIELD,
)
PAGE_LOGIN_REFUSED = Event(
    "login to the page refused",
    WARNING,
    _LOG,
    "A mistake, or guesses: see who can reach `http.address`. One line for each, as for `login refused`.",
    PEER_FIELD | {"reason": "as in the metric `smtp_dedup_page_logins_total`"},
)
SENDER_REFUSED = Event(
    "sender refused",
    WARNING,
    _LOG,
    "`no_login`: the client must log in, or belongs into `listen.networks`. `not_allowed`: `relay user add --from`. "
    "`rate`: `limits.message_rate`, or a stolen password.",
    PEER_FIELD | {"reason": "as in the metric `smtp_dedup_senders_refused_total`"} | _TIMES_FIELD,
    _LOGIN_FIELD,
)
FAULT = Event(
    "fault",
    ERROR,
    _LOG,
    "Report it, with the traceback, which the first of several equal faults has. The client received 451, or the "
    "message was forwarded without a claim.",
    RECORD_FIELD | {"where": "the step that failed"} | ERROR_FIELD,
    TRACEBACK_FIELD,
)
