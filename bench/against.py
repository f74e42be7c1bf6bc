"""Compares the speed of this working tree with that of another commit, within one run.

    python bench/against.py REF [--messages N] [--rounds N] [--clients N] [--case WORD]...

Both relays run at once, on the same machine and with the same libraries, and take turns (A B, B A, A B, ...), so that
other work on the machine affects both. Each round starts both anew: two processes of one commit differ by up to 10 %.
Each case prints the median of the ratios of the pairs with its quartiles, and the medians. The case "judgement" runs
`bench/fingerprint.py` of both commits in the same way.
"""

from __future__ import annotations

import argparse
import compileall
import itertools
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from processes import TREE, RedisServer, Server, Speed, start, start_relay

if TYPE_CHECKING:
    from collections.abc import Iterator

_JUDGEMENT = re.compile(r"(judge with [0-9]+ fingerprints, .+): ([0-9.]+) ms")
KEPT_ALIVE = 50
"""Messages on each connection that is kept open."""


@dataclass(frozen=True)
class Case:
    """One way to use the relay. `stores` are the URLs of two empty stores of a kind, one for each relay."""

    name: str
    per_connection: int
    stores: tuple[str, str]


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Provides the commit's files in a temporary git worktree."""
    with tempfile.TemporaryDirectory(prefix="relay-against-") as folder:
        tree = Path(folder, "tree")
        git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(TREE), *arguments], check=True)


def cases(folder: Path, redis: RedisServer) -> list[Case]:
    redis_url = redis.url.removesuffix("/0")
    numbers = itertools.count()

    def case(kind: str, how: str, per_connection: int) -> Case:
        first, second = next(numbers), next(numbers)
        if kind == "Redis":
            return Case(f"{kind}, {how}", per_connection, (f"{redis_url}/{first}", f"{redis_url}/{second}"))
        return Case(f"{kind}, {how}", per_connection, (f"sqlite:{folder}/{first}.db", f"sqlite:{folder}/{second}.db"))

    ways = {"a connection per message": 1, "keep-alive": KEPT_ALIVE}
    return [case(kind, how, count) for kind in ("SQLite", "Redis") for how, count in ways.items()]


def compare(case: Case, old: Path, upstream: int, options: argparse.Namespace) -> list[tuple[Speed, Speed]]:
    """Returns the speeds of the old and the new relay in pairs, one pair a round."""

    def measure(relay: Server, messages: int) -> Speed:
        return relay.measure(messages, clients=options.clients, per_connection=case.per_connection)

    pairs = []
    for number in range(options.rounds):
        progress(f"{case.name}: round {number + 1} of {options.rounds}")
        with ExitStack() as servers:
            relays = [
                servers.enter_context(start_relay(upstream, store=store, tree=tree))
                for store, tree in zip(case.stores, (old, TREE), strict=True)
            ]
            for relay in relays:
                measure(relay, options.messages // 4)
            turn = relays if number % 2 == 0 else relays[::-1]
            speeds = [measure(relay, options.messages) for relay in turn]
        pairs.append((speeds[0], speeds[1]) if turn is relays else (speeds[1], speeds[0]))
    return pairs


def judge_times(tree: Path) -> dict[str, float]:
    """Returns the milliseconds of CPU for a judgement by kind of mail, as measured by the tree's own benchmark."""
    printed = subprocess.run(
        [sys.executable, "bench/fingerprint.py"], cwd=tree, check=True, capture_output=True, text=True
    ).stdout
    return {kind: float(milliseconds) for kind, milliseconds in _JUDGEMENT.findall(printed)}


def compare_judgements(old: Path, rounds: int) -> Iterator[str]:
    """Yields a line for each kind of mail that both benchmarks measure."""
    pairs = []
    for number in range(rounds):
        progress(f"judgement: round {number + 1} of {rounds}")
        turn = (old, TREE) if number % 2 == 0 else (TREE, old)
        times = {tree: judge_times(tree) for tree in turn}
        pairs.append((times[old], times[TREE]))
    for kind in pairs[0][0]:
        if kind in pairs[0][1]:
            before, after = (statistics.median(pair[side][kind] for pair in pairs) for side in (0, 1))
            low, ratio, high = quartiles([b[kind] / a[kind] for a, b in pairs])
            yield f"{kind:<72} CPU x {ratio:.3f} [{low:.3f} to {high:.3f}] ({before:.3f} -> {after:.3f} ms)"


def quartiles(ratios: list[float]) -> list[float]:
    return statistics.quantiles(ratios, method="inclusive") if len(ratios) > 1 else ratios * 3


def summary(case: Case, pairs: list[tuple[Speed, Speed]]) -> str:
    old, new = (Speed(*map(statistics.median, zip(*speeds, strict=True))) for speeds in zip(*pairs, strict=True))
    low, cpu, high = quartiles([b.cpu / a.cpu for a, b in pairs])
    rate = statistics.median(b.rate / a.rate for a, b in pairs)
    return (
        f"{case.name:<33} CPU x {cpu:.3f} [{low:.3f} to {high:.3f}] ({old.cpu:.2f} -> {new.cpu:.2f} ms a message)   "
        f"rate x {rate:.3f} ({old.rate:.0f} -> {new.rate:.0f} messages a second)"
    )


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ref", metavar="REF", help="the commit to compare with")
    parser.add_argument("--messages", type=int, default=2000, help="messages of one measurement (2000)")
    parser.add_argument("--rounds", type=int, default=6, help="pairs of measurements for each case (6)")
    parser.add_argument("--clients", type=int, default=20, help="connections at a time (20)")
    parser.add_argument("--case", action="append", default=[], help="only cases with this text: Redis, judgement")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-against-")))
        old = stack.enter_context(tree_of(options.ref))
        for tree in (old, TREE):  # a relay that compiles its source as it starts uses 13 % more CPU for each message
            compileall.compile_dir(tree / "relay", quiet=1)
        if not options.case or "judgement" in options.case:
            for line in compare_judgements(old, options.rounds):
                print(line, flush=True)
        redis = stack.enter_context(RedisServer())
        sink = stack.enter_context(start("traffic.py", "sink"))
        for case in cases(folder, redis):
            if all(text not in case.name for text in options.case or [""]):
                continue
            print(summary(case, compare(case, old, sink.port, options)), flush=True)


if __name__ == "__main__":
    main()
