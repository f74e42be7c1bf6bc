"""A kept copy on its way through the upstream once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from relay.core.delivery import Unclear
    from relay.core.record import SuppressedCopy
    from relay.core.reply import Reply
    from relay.settings import Settings

Answer: TypeAlias = "Reply | Unclear"


async def resend(
    settings: Settings,
    password: str | None,
    copy: SuppressedCopy,
    paths: Sequence[bytes],
    mark: Callable[[Sequence[bytes]], None],
) -> Mapping[bytes, Answer]:
    """Send a copy to these paths, and give what the upstream said to each.

    `mark` notes who gets it, before the content goes out: a process that is killed then sends nobody a second copy
    later. It is taken back where it is sure that nobody got it. What it raises ends the work.
    """
    from relay.core.delivery import NotSent, Unclear
    from relay.core.envelope import Envelope
    from relay.core.reply import UNREACHABLE
    from relay.service import build_upstream

    upstream = build_upstream(settings, password)
    delivery = upstream.begin(Envelope(copy.reverse_path, copy.parameters))
    try:
        answers: dict[bytes, Answer] = {path: await delivery.rcpt(path) for path in paths}
        taken = _positive(answers)
        if taken:
            answers |= await delivery.prepare(taken)
            taken = _positive({path: answers[path] for path in taken})
        if taken:
            mark(taken)
            outcome = await delivery.send(b"", copy.content)
            answer = UNREACHABLE if isinstance(outcome, NotSent) else outcome
            answers |= dict.fromkeys(taken, answer)
            if not isinstance(answer, Unclear) and not answer.positive:
                mark(())
        return answers
    finally:
        await delivery.finish()
        await upstream.close()


def _positive(answers: Mapping[bytes, Answer]) -> list[bytes]:
    return [path for path, answer in answers.items() if getattr(answer, "positive", False)]
