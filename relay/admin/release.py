"""Forwards a kept copy of a suppressed message, for `relay release`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from relay.admin.resend import resend
from relay.core.envelope import fold
from relay.core.errors import AdminError
from relay.core.reply import Reply
from relay.records.copy_format import DamagedError, decode, released
from relay.records.kept_copies import KeptCopies
from relay.records.pseudonyms import address
from relay.runtime.terminal import printable
from relay.settings.passwords import upstream_password
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from relay.admin.resend import Answer
    from relay.core.record import SuppressedCopy
    from relay.records.kept_copies import KeptFile
    from relay.settings import Settings


@dataclass
class Released:
    """What came of a release, for people."""

    notes: list[str] = field(default_factory=list)
    """Who got no copy because an earlier release had sent one."""
    answers: list[str] = field(default_factory=list)
    """The answer of the upstream for each recipient, a line each."""
    done: str = ""
    """What was done, in one line, if the answers cannot be shown."""
    errors: list[str] = field(default_factory=list)
    """What to do about recipients for whom the upstream did not accept the copy."""

    def encode(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return asdict(self)

    @classmethod
    def decode(cls, found: Mapping[str, Any]) -> Released:
        """Reads a JSON object. Raises `LookupError`."""
        lists = {name: [str(line) for line in found[name]] for name in ("notes", "answers", "errors")}
        return cls(**lists, done=str(found["done"]))


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """What is to be released: the record, recipients (all if empty), and whether those who have it get it again."""

    record: str
    only: tuple[str, ...] = ()
    again: bool = False

    def encode(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return asdict(self)

    @classmethod
    def decode(cls, found: Mapping[str, Any]) -> ReleaseRequest:
        """Reads a JSON object. Raises `LookupError` or `TypeError`."""
        return cls(str(found["record"]), tuple(map(str, found["only"])), bool(found["again"]))


async def release(settings: Settings, request: ReleaseRequest) -> Released:
    """Sends a kept copy, and returns what came of it. Blocks while it reads and writes files.

    Raises `AdminError` if nothing was sent, or `SettingsError` if the upstream's password cannot be read.
    """
    if settings.record.keep is None:
        raise AdminError(
            'record.keep is off, so no copy is kept; with record.keep = "maildir:PATH" the copies are kept that are '
            "suppressed from then on"
        )
    result, keep = Released(), KeptCopies(settings.record.keep.path)
    try:
        with keep.lock():
            answers = await _resend(settings, keep, request, result)
    except FileNotFoundError:
        raise _not_kept(settings, keep, request.record) from None
    except BlockingIOError:
        raise AdminError(f"another relay release works in {keep.path}; try again when it has ended") from None
    except OSError as error:
        raise AdminError(
            f"record.keep {error.filename or keep.path}: {error.strerror}; run this as a user who may write there"
        ) from error
    _report(answers, request, result)
    return result


async def _resend(
    settings: Settings, keep: KeptCopies, request: ReleaseRequest, result: Released
) -> Mapping[bytes, Answer]:
    record, found = request.record, keep.find(request.record)
    if found is None:
        raise FileNotFoundError
    file, (copy, before) = found, _read(found, record)
    paths = _chosen(copy, before, request, result)

    def mark(sent: Sequence[bytes]) -> None:
        nonlocal file
        file = keep.mark_released(file, record, copy, before | set(sent))

    return await resend(settings, upstream_password(settings), copy, paths, mark)


def _read(file: KeptFile, record: str) -> tuple[SuppressedCopy, frozenset[bytes]]:
    """Returns the copy, and the forward-paths to which it was released. Raises `AdminError` if it is damaged."""
    octets = file.path.read_bytes()
    try:
        copy = decode(octets, record)
        return copy, frozenset(copy.paths) if file.released else released(octets)
    except DamagedError as error:
        raise AdminError(f"{file.path}: {error}; it is not sent") from error


def _chosen(
    copy: SuppressedCopy, before: Collection[bytes], request: ReleaseRequest, result: Released
) -> tuple[bytes, ...]:
    """Returns the forward-paths to send to: those asked for, without those that an earlier release has served."""
    wanted = {address(written): written for written in request.only}
    unknown = wanted.keys() - {fold(path) for path in copy.paths}
    if unknown:
        raise AdminError(
            *(f"{request.record} was not suppressed for {wanted[recipient]}" for recipient in sorted(unknown))
        )
    asked = [path for path in copy.paths if not wanted or fold(path) in wanted]
    chosen = tuple(path for path in asked if request.again or path not in before)
    if not chosen:
        raise AdminError(
            f"{request.record} was released before; relay release {request.record} --again sends it once more"
        )
    skipped = (path for path in asked if path not in chosen)
    result.notes += [f"{_shown(path)} got it by an earlier release; not sent again" for path in skipped]
    return chosen


def _report(answers: Mapping[bytes, Answer], request: ReleaseRequest, result: Released) -> None:
    accepted = unclear = 0
    record, to = request.record, " --to ADDRESS" if request.only else ""
    for path, answer in answers.items():
        if isinstance(answer, Reply):
            text = f"{answer.code} {answer.text}"
            accepted += answer.positive
        else:
            text = f"no reply after the dot: {answer.reason}"
            unclear += 1
        result.answers.append(f"{_shown(path)}  {printable(text)}")
    if refused := len(answers) - accepted - unclear:
        result.errors.append(f"not accepted for {refused} of {len(answers)}; to try again: relay release {record}{to}")
    if unclear:
        result.errors.append(
            f"for {unclear} of {len(answers)} it is unknown whether the upstream accepted it; "
            f"relay release {record} --again{to} sends it once more, perhaps a second copy"
        )
    result.done = "; ".join([f"the upstream accepted the copy for {accepted} of {len(answers)}", *result.errors])


def _not_kept(settings: Settings, keep: KeptCopies, record: str) -> AdminError:
    return AdminError(
        f"no copy of {record} is kept in {keep.path}; copies stay for {format_duration(settings.record.keep_for)} "
        f"(record.keep_for), and only of suppressed messages. relay why {record} shows what is recorded"
    )


def _shown(path: bytes) -> str:
    return printable(path.decode("utf-8", "backslashreplace"))
