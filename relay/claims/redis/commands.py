"""The Redis commands that carry out a store's commands, and the meaning of their replies.

A script returns 1, or the key's value and its remaining time (ms). What no relay wrote may be long: it is cut to more
than a relay writes, and counts as damaged then. EVAL sends the text of a script, which Redis caches:
EVALSHA would need a second round trip if the cache is empty, and redis-py's cluster pipeline refuses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from relay.claims.wire_form import decode, decode_recipient, decode_sequence, encode
from relay.core.claim import (
    RANDOM_NAME,
    AskGeneration,
    Claim,
    Confirm,
    Done,
    Entry,
    Fingerprint,
    Follow,
    Free,
    Full,
    Generation,
    Held,
    Original,
    Peek,
    Release,
    Renew,
    Sent,
    Unknown,
    Won,
)
from relay.core.sequence import MOST_FINGERPRINTS

if TYPE_CHECKING:
    from relay.core.claim import Answer, Command

Request: TypeAlias = tuple[str | bytes | int, ...]

_PREFIX = "smtp-dedup"
YEAR_MS = 366 * 24 * 3600 * 1000
"""Every key has an expiry. Each start of a relay sets that of the identity to a year again."""

_FULL = b"full"
"""The reply of a script that would have added a key."""
_LONGEST_NAME = 63
"""The last byte that is read of a generation."""
_DIGITS = 15
"""The longest number of milliseconds in an entry: Lua counts that far without loss."""
_SLACK_MS = 100
"""An entry may have so much more time left than its window: clocks drift a little between two replies to TIME."""

# Negative remaining time: a key without expiry, which no relay wrote. Negative age: more time is left than the whole
# window, so the expiry was changed, or the clock was set back. Both count as free.
_CLAIM = """
if ARGV[5] == '1' and redis.call('EXISTS', KEYS[1]) == 0 then return 'full' end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PXAT', ARGV[2]) then return 1 end
local value, left = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
local window = tonumber(string.match(value, '^s(%d+) '))
local age = window and window - left
if value == ARGV[1] or left < 0 or (age and (age < -tonumber(ARGV[4]) or age >= tonumber(ARGV[3]))) then
  redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
  return 1
end
return {string.sub(value, 1, 16384), left}"""
_PEEK = """
local value = redis.call('GET', KEYS[1])
return {value and string.sub(value, 1, 16384), redis.call('PTTL', KEYS[1])}"""
# Returns what the key held before, unless it was of another type, which no relay writes.
_CONFIRM = """
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[1]) == 0 then return 'full' end
local before = redis.pcall('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
return type(before) == 'string' and string.sub(before, 1, 16384)"""
_RENEW = """
local value = redis.call('GET', KEYS[1])
if value == ARGV[1] then redis.call('PEXPIREAT', KEYS[1], ARGV[2]) return 1 end
return {value and string.sub(value, 1, 16384), redis.call('PTTL', KEYS[1])}"""
_FREE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
# The words of a sequence: `q`, the epoch, the fingerprints. What no relay wrote is replaced.
_FOLLOW = """
local value = redis.call('GET', KEYS[1])
if not value and ARGV[5] == '1' then return 'full' end
value = string.sub(value or '', 1, 1024)
local words, most = {}, tonumber(ARGV[4])
for word in string.gmatch(value, '%S+') do words[#words + 1] = word end
if words[1] ~= 'q' or #words < 3 or #words > most + 2 or not string.match(words[2], '^%x+$') then words = {} end
if words[3] ~= ARGV[1] then
  value = 'q ' .. ARGV[2] .. ' ' .. table.concat({ARGV[1], unpack(words, 3, most + 1)}, ' ')
end
redis.call('SET', KEYS[1], value, 'PXAT', ARGV[3])
return value"""
# What no relay wrote is replaced: the identity goes into a field of every mail.
_IDENTITY = """
local found = redis.pcall('GET', KEYS[1])
if type(found) ~= 'string' or #found ~= 16 or string.find(found, '[^0-9a-f]') then
  found = ARGV[1]
  redis.call('SET', KEYS[1], found)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return found"""


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of the keys of one namespace. No pattern for the keys of one matches those of another."""

    namespace: str = ""

    @property
    def prefix(self) -> str:
        """What all keys begin with, such as `smtp-dedup:` or `smtp-dedup.staging:`."""
        return f"{_PREFIX}.{self.namespace}:" if self.namespace else f"{_PREFIX}:"

    @property
    def identity(self) -> str:
        """The key of the store's random id."""
        return self.prefix + "identity"

    @property
    def generation(self) -> str:
        """The key of the generation."""
        return self.prefix + "generation"

    @property
    def records(self) -> str:
        """The key of the stream of records that version 0.1 wrote."""
        return self.prefix + "records"


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def key_of(keys: Keys, command: Command) -> str:
    """Returns the key that a command uses."""
    match command:
        case AskGeneration():
            return keys.generation
        case Follow():
            return keys.prefix + command.sequence
    return keys.prefix + command.key


def key_in(asked: Request) -> str | bytes:
    """Returns the key in a request that has one."""
    return str(asked[1]) if asked[0] != "EVAL" else asked[3] if isinstance(asked[3], bytes) else str(asked[3])


def identity(keys: Keys, own: str) -> Request:
    """Returns the request for the store's identity, which is `own` if there is none yet."""
    return ("EVAL", _IDENTITY, 1, keys.identity, own, YEAR_MS)


def request(command: Command, now: float, keys: Keys, *, is_full: bool = False) -> Request:
    """Returns the Redis command for a command that was given at `now` (s) by the server's clock.

    If the store is full, the command adds no key.
    """
    name, full = key_of(keys, command), int(is_full)

    def at(seconds: float) -> int:
        return math.floor((now + seconds) * 1000)

    redis_command: Request
    match command:
        case Claim(_, token, lease, window):
            redis_command = ("EVAL", _CLAIM, 1, name, "h" + token, at(lease), _ms(window), _SLACK_MS, full)
        case Peek():
            redis_command = ("EVAL", _PEEK, 1, name)
        case Confirm(_, original, window, age, recipient) if age < window:
            value = f"s{_ms(window)} {encode(original, recipient)}"
            redis_command = ("EVAL", _CONFIRM, 1, name, value, at(window - age), full)
        case Confirm():
            redis_command = ("EXISTS", name)  # the window has passed; each command needs a reply
        case Renew(_, token, lease):
            redis_command = ("EVAL", _RENEW, 1, name, "h" + token, at(lease))
        case Release(_, token):
            redis_command = ("EVAL", _FREE, 1, name, "h" + token)
        case Follow(_, fingerprint, epoch, keep_for):
            redis_command = ("EVAL", _FOLLOW, 1, name, fingerprint, epoch, at(keep_for), MOST_FINGERPRINTS, full)
        case AskGeneration():
            redis_command = ("GETRANGE", name, 0, _LONGEST_NAME)
    return redis_command


def answer(command: Command, reply: object) -> Answer:
    """Returns the answer that the reply to a command means."""
    if isinstance(reply, Unknown) or reply == _FULL:
        return reply if isinstance(reply, Unknown) else Full()
    match command:
        case Confirm() | Release():
            return Done(claim_lost=isinstance(command, Confirm) and _is_anothers(command, reply))
        case Follow() | AskGeneration():
            return _sequence(reply) if isinstance(command, Follow) else _generation(reply)
        case Claim() | Renew() if reply == 1:
            return Won() if isinstance(command, Claim) else Done()
    return _state(reply, command.window if isinstance(command, Claim | Peek) else math.inf)


def _generation(reply: object) -> Answer:
    name = reply.decode("ascii", "replace") if isinstance(reply, bytes) else ""
    return Generation(name) if not name or RANDOM_NAME.fullmatch(name) else Unknown("no relay wrote the generation")


def _sequence(reply: object) -> Answer:
    text = reply.decode("ascii", "replace") if isinstance(reply, bytes) else ""
    return decode_sequence(text.removeprefix("q ")) or Unknown("no relay wrote the sequence")


def _state(reply: object, window: float) -> Answer:
    """Returns the state in a reply of value and remaining time (ms)."""
    match reply:
        case [None, _]:
            return Free()
        case [bytes(), int(left)] if left < 0:
            return Free()
        case [bytes(value), int(left)] if value.startswith(b"h"):
            return Held(left / 1000)
        case [bytes(value), int(left)] if value.startswith(b"s"):
            return _sent(value, left, window)
    return Unknown("the key holds something that no relay wrote")


def _is_anothers(confirm: Confirm, before: object) -> bool:
    if not isinstance(before, bytes):
        return False
    if before.startswith(b"h"):
        return before != b"h" + confirm.token.encode()
    original = decode(before.partition(b" ")[2])
    return original is not None and original.id != confirm.original.id


def _sent(value: bytes, left: int, window: float) -> Answer:
    read = _read(value, left)
    if read is None:
        return Unknown("the entry is damaged")
    fresh = -_SLACK_MS <= read.age_ms < window * 1000
    return Sent(read.original, read.age, read.window_ms / 1000) if fresh else Free()


class _Read(NamedTuple):
    original: Original
    text: bytes
    """The JSON text of the original."""
    window_ms: int
    age_ms: int

    @property
    def age(self) -> float:
        return max(0, self.age_ms) / 1000


def _read(value: bytes, left: int) -> _Read | None:
    """Returns the parts of a `sent` entry; None if it is damaged."""
    whole, _, text = value[1:].partition(b" ")
    original = decode(text)
    if not whole.isdigit() or len(whole) > _DIGITS or original is None:
        return None
    return _Read(original, text, int(whole), int(whole) - left)


# Listing and forgetting


class StoredAcceptance(NamedTuple):
    """A `sent` entry in the store."""

    key: bytes
    value: bytes
    entry: Entry


def peek(key: bytes) -> Request:
    """Asks for a key's value and remaining time."""
    return ("EVAL", _PEEK, 1, key)


def acceptance(keys: Keys, key: bytes, reply: object) -> StoredAcceptance | None:
    """Returns the acceptance in the reply to `peek`; None if the key holds none."""
    match reply:
        case [bytes(value), int(left)] if value.startswith(b"s") and left >= 0:
            read = _read(value, left)
            if read and read.age_ms >= -_SLACK_MS:
                name = Fingerprint(key.decode("ascii", "replace").removeprefix(keys.prefix))
                return StoredAcceptance(key, value, Entry(name, read.original, read.age, decode_recipient(read.text)))
    return None


def free(key: str | bytes, value: str | bytes) -> Request:
    """Deletes a key if it still has this value. The reply is 1, or else 0."""
    return ("EVAL", _FREE, 1, key, value)


class StoredRecord(NamedTuple):
    """A record of version 0.1; `keep_for` in seconds."""

    id: bytes
    keep_for: float
    text: str


def read_record(fields: object) -> StoredRecord | None:
    """Returns the record in the fields of a stream entry; None if no relay wrote them."""
    match fields:
        case [b"record", bytes(record), b"keep", bytes(keep), b"text", bytes(text)] if keep.isdigit():
            return StoredRecord(record, int(keep[:_DIGITS]) / 1000, text.decode("ascii", "replace"))
    return None
