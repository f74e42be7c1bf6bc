"""The delivery of a kept copy for `relay release`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from relay.core.delivery import NotSent, Unclear
from relay.core.envelope import Envelope
from relay.core.reply import UNREACHABLE
from relay.service.build_upstream import build_upstream, plan_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    """Sends a copy to these forward-paths, and returns the upstream's answer for each.

    Calls `mark` with the recipients before the content goes out: if this process is killed then, a later release
    sends them no second copy. Calls it with none when it is certain that the upstream accepted nothing. What `mark`
    raises ends the delivery.
    """
    upstream = build_upstream(plan_upstream(settings, password))
    envelope = Envelope(copy.reverse_path, copy.parameters)
    envelope.note_content(copy.content)
    delivery = upstream.begin(envelope)
    try:
        answers: dict[bytes, Answer] = {path: await delivery.rcpt(path) for path in paths}
        accepted = _positive(answers)
        if accepted:
            answers |= await delivery.prepare(accepted)
            accepted = _positive({path: answers[path] for path in accepted})
        if accepted:
            mark(accepted)
            outcome = await delivery.send(b"", copy.content)
            answer = UNREACHABLE if isinstance(outcome, NotSent) else outcome
            answers |= dict.fromkeys(accepted, answer)
            if not isinstance(answer, Unclear) and not answer.positive:
                mark(())
        return answers
    finally:
        await delivery.finish()
        await upstream.close()


def _positive(answers: Mapping[bytes, Answer]) -> list[bytes]:
    return [path for path, answer in answers.items() if getattr(answer, "positive", False)]
