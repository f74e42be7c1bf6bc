"""What a claim store offers, and what the rest of the relay sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from relay.core.claim import Answer, Command, Entry


class StoreClient(Protocol):
    """The guarded store: never raises; `Unknown` where it could not be asked."""

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Give an answer for each command."""

    @property
    def up(self) -> bool:
        """Whether the store answers."""


class Store(Protocol):
    """What arbitrates between processes and remembers over restarts.

    A store is asked by one caller at a time, and never again before it has answered. Only the guard calls it.
    """

    async def open(self) -> None:
        """Make ready, and see that it answers. Raises `StoreError`; may be called again, always."""

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carry out all commands in one round trip. Raises `StoreError` when none could be answered."""

    @property
    def restarts(self) -> int:
        """Another number whenever it may have lost what it was told: it was restarted, or another has its place."""

    async def identity(self) -> str:
        """Give the random id of this store, made by whoever asks first: the mark against mail loops."""

    def records(self, age: float) -> AsyncIterator[str]:
        """Give the records that are not older than `age` seconds by the store's clock, newest first.

        They are read page by page, and nothing is locked in between. Raises `StoreError`.
        """

    def sent(self) -> AsyncIterator[Entry]:
        """Give what was sent and is inside its window, in no order; what moves meanwhile may come twice.

        Read page by page as the records are. Raises `StoreError`.
        """

    async def forget(self, matches: Callable[[Entry], bool]) -> int:
        """Free what was sent and matches, between two new generations. Gives their number. Raises `StoreError`.

        Claims that are held stay. The first generation ends what relays write back; where this fails, it may stand. The
        second begins when all are free: who has heard of it finds them so.
        """

    async def close(self) -> None:
        """Let go of everything. Never raises."""
