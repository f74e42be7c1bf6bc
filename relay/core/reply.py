"""SMTP replies (RFC 5321 section 4.2), and the relay's own ones with enhanced status codes (RFC 3463).

The text of a reply is bytes: an upstream may send 8-bit text, and the client receives it unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

_OK = 250
_SERVICE_CLOSING = 421


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply code and the text of each line, without code and separator. Example: `Reply(250, (b"2.0.0 Ok",))`."""

    code: int
    lines: tuple[bytes, ...]

    @classmethod
    def of(cls, code: int, text: str) -> Reply:
        """Returns a reply of one line."""
        return cls(code, (text.encode("ascii", "replace"),))

    @property
    def positive(self) -> bool:
        """Whether the code is 2yz."""
        return self.code // 100 == 2  # noqa: PLR2004 - RFC 5321 section 4.2.1

    @property
    def transient(self) -> bool:
        """Whether the code is 4yz: the client may try again."""
        return self.code // 100 == 4  # noqa: PLR2004 - RFC 5321 section 4.2.1

    @property
    def permanent(self) -> bool:
        """Whether the code is 5yz: a retry would receive the same reply."""
        return self.code // 100 == 5  # noqa: PLR2004 - RFC 5321 section 4.2.1

    @property
    def closing(self) -> bool:
        """Whether the code is 421: the sender of the reply closes the connection (RFC 5321 section 3.8)."""
        return self.code == _SERVICE_CLOSING

    @property
    def text(self) -> str:
        """All lines as one text, for logs and records."""
        return b" ".join(self.lines).decode("utf-8", "backslashreplace")

    def encode(self) -> bytes:
        """Returns the octets on the wire. All lines but the last have a hyphen (RFC 5321 section 4.2.1)."""
        *others, last = self.lines
        return b"".join(b"%d-%b\r\n" % (self.code, line) for line in others) + b"%d %b\r\n" % (self.code, last)

    def for_client(self) -> Reply:
        """Returns an upstream's reply for the client: 421 becomes 451, because it would close the client's session."""
        return Reply(451, self.lines) if self.closing else self

    def as_transient(self) -> Reply:
        """Returns 451 for one of the relay's own 5yz replies, with the same subject and detail codes."""
        first, *others = self.lines
        return Reply(451, (b"4" + first[1:], *others))

    def as_acceptance(self) -> Reply:
        """Returns 250 for any 2yz after the final dot: PHPMailer treats only 250 as success there."""
        return Reply(_OK, self.lines) if self.positive else self


# RFC 5321 section 4.2.3 for the codes, RFC 3463 and RFC 5248 for the enhanced ones.
OK = Reply.of(250, "2.0.0 Ok")
SENDER_OK = Reply.of(250, "2.1.0 Ok")
CLOSING = Reply.of(221, "2.0.0 Bye")
CANNOT_VERIFY = Reply.of(252, "2.5.0 Cannot verify, send it and see")
START_TLS = Reply.of(220, "2.0.0 Ready to start TLS")
START_INPUT = Reply.of(354, "End data with <CR><LF>.<CR><LF>")
LOGGED_IN = Reply.of(235, "2.7.0 Authentication successful")
DRAINING = Reply.of(421, "4.3.2 Service is shutting down, try again later")
TOO_MANY_ERRORS = Reply.of(421, "4.7.0 Too many errors")
TOO_MANY_FAILED_LOGINS = Reply.of(421, "4.7.0 Too many failed logins, closing")
TOO_MANY_SESSIONS = Reply.of(421, "4.3.2 Too many sessions, try again later")
TOO_MANY_SESSIONS_OF_CLIENT = Reply.of(421, "4.3.2 Too many sessions from your address, try again later")
TLS_NOT_SPOKEN = Reply.of(421, "4.7.0 This port does not begin with TLS, closing")
NO_PROXY_HEADER = Reply.of(421, "4.3.5 PROXY protocol header expected, closing")
INPUT_BEFORE_TLS = Reply.of(421, "4.7.0 Input after STARTTLS and before the handshake, closing")
BDAT_UNREADABLE = Reply.of(421, "4.5.0 Cannot skip this BDAT chunk, closing")
IDLE = Reply.of(421, "4.4.2 Idle for too long, closing")
CONTENT_TOO_SLOW = Reply.of(421, "4.4.2 The content arrives too slowly, closing")
SESSION_TOO_LONG = Reply.of(421, "4.4.2 The session has lasted too long, connect again")
TOO_MANY_COMMANDS = Reply.of(421, "4.7.0 Too many commands without a message, closing")
INTERNAL_FAULT = "4.3.0 Internal fault, try again later, id {id}"
UNREACHABLE = Reply.of(451, "4.4.1 The upstream mail server cannot be reached, try again later")
UPSTREAM_BUSY = Reply.of(451, "4.4.5 All connections to the upstream mail server are in use, try again later")
OUTCOME_UNKNOWN = Reply.of(
    451, "4.4.2 The upstream mail server did not say whether it took the message, try again later"
)
FIRST_COPY_IN_PROGRESS = Reply.of(451, "4.4.5 The first copy of this message is still on its way, try again later")
TOO_MANY_MESSAGES_PER_MINUTE = Reply.of(450, "4.7.1 Too many messages in a minute, try again later")
TOO_MANY_RECIPIENTS_PER_MINUTE = Reply.of(450, "4.7.1 Too many recipients in a minute, try again later")
NO_MEMORY = Reply.of(452, "4.3.1 No memory for this message now, try again later")
TOO_MANY_RECIPIENTS = Reply.of(452, "4.5.3 Too many recipients")
LOGIN_UNAVAILABLE = Reply.of(454, "4.7.0 The login cannot be verified now, try again later")
TOO_MANY_LOGINS = Reply.of(454, "4.7.0 Too many logins from your address at a time, try again later")
UNKNOWN_COMMAND = Reply.of(500, "5.5.2 Command not recognized")
LINE_TOO_LONG = Reply.of(500, "5.5.2 Line too long")
LOGIN_LINE_TOO_LONG = Reply.of(500, "5.5.6 Authentication exchange line is too long")
NOT_IMPLEMENTED = Reply.of(502, "5.5.1 Command not implemented")
BAD_SYNTAX = Reply.of(501, "5.5.4 Syntax error in parameters")
BAD_ADDRESS = Reply.of(501, "5.1.3 Malformed address")
NOT_BASE64 = Reply.of(501, "5.5.2 Cannot decode the response")
LOGIN_CANCELLED = Reply.of(501, "5.7.0 Authentication cancelled")
BAD_SEQUENCE = Reply.of(503, "5.5.1 Bad sequence of commands")
UNKNOWN_MECHANISM = Reply.of(504, "5.5.4 Unrecognized authentication mechanism")
LOGIN_REQUIRED = Reply.of(530, "5.7.0 Authentication required")
LOGIN_REFUSED = Reply.of(535, "5.7.8 Authentication credentials invalid")
ENCRYPTION_REQUIRED = Reply.of(538, "5.7.11 Encryption required for authentication, use STARTTLS first")
SENDER_NOT_ALLOWED = Reply.of(553, "5.7.1 Your login may not use this sender address")
UTF8_ADDRESS_NOT_SUPPORTED = Reply.of(
    553, "5.6.7 The address needs SMTPUTF8, which the upstream mail server does not offer"
)
UTF8_HEADER_NOT_SUPPORTED = Reply.of(
    554, "5.6.9 The header section needs SMTPUTF8, which the upstream mail server does not offer"
)
EIGHT_BIT_NOT_SUPPORTED = Reply.of(
    554, "5.6.3 The content needs 8BITMIME, which the upstream mail server does not offer"
)
TOO_LARGE = Reply.of(552, "5.3.4 Message too large")
BARE_LINE_END = Reply.of(550, "5.6.0 The content has a CR or LF that is not part of CRLF")
NO_VALID_RECIPIENTS = Reply.of(554, "5.5.1 No valid recipients")
NETWORK_NOT_ALLOWED = Reply.of(554, "5.7.1 This relay does not serve your network")
MAIL_LOOP = Reply.of(554, "5.4.6 Too many hops, this message goes round in circles")
UNKNOWN_PARAMETER = Reply.of(555, "5.5.4 Parameter not recognized or not implemented")
