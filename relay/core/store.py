"""The interfaces of a claim store and of its client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from relay.core.claim import Answer, Command, Entry


class StoreClient(Protocol):
    """A store behind a circuit breaker."""

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Returns an answer for each command, `Unknown` where the store could not be asked. Never raises."""

    @property
    def up(self) -> bool:
        """Whether the store answers."""

    @property
    def data_losses(self) -> int:
        """A number that changes when the store was found to have lost data. Unchanged if it was only away."""


class Store(Protocol):
    """Arbitrates between processes and survives restarts.

    Only the store client calls it, one call at a time.
    """

    async def open(self) -> None:
        """Prepares the store and checks that it answers. May be called again at any time. Raises `StoreError`."""

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carries out all commands in one round trip. Raises `StoreError` if none could be answered."""

    @property
    def restarts(self) -> int:
        """A number that changes when the store may have lost data: it was restarted, or another server replaced it."""

    async def identity(self) -> str:
        """Returns the store's random id, which the first caller generates. It marks our mail against loops."""

    def sent(self) -> AsyncIterator[Entry]:
        """Yields the acceptances within their windows, in no order. One that moves meanwhile may be yielded twice.

        Reads page by page, without a lock between two pages. Raises `StoreError`.
        """

    async def forget(self, matches: Callable[[Entry], bool]) -> int:
        """Frees the acceptances that match, and returns their number. Held claims stay. Raises `StoreError`.

        Begins a new generation before and another one after. The first stops relays from writing forgotten acceptances
        back; it stays if this fails. The second begins when all are free: a relay that reads it finds them free.
        """

    async def close(self) -> None:
        """Closes all connections and files. Never raises."""


class OldRecords(Protocol):
    """The records of suppressions that version 0.1 wrote into a store of claims."""

    def records(self, age: float) -> AsyncIterator[str]:
        """Yields the records that are at most `age` seconds old by the store's clock, newest first.

        Reads page by page, without a lock between two pages. Raises `StoreError`.
        """

    async def close(self) -> None:
        """Closes all connections and files. Never raises."""
