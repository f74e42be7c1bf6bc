"""Fuzzes the judge, or sessions in one state, with atheris, guided by coverage, and replays findings.

python tests/fuzz/run.py --minutes 30
python tests/fuzz/run.py --minutes 10 --state rcpt
python tests/fuzz/run.py --replay tests/fuzz/findings/*
"""

from __future__ import annotations

import argparse
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
SEEDS = HERE.parent / "corpus"
FINDINGS = HERE / "findings"
SESSION_FINDINGS = HERE / "session_findings"
"""A finding of a session begins with the name of its state, as in `auth-login,empty-name`."""
WORK = HERE.parents[1] / "var" / "fuzz"
LONGEST_INPUT = 32 * 1024
"""Bytes. Costs that grow faster than the input show at this size. test_hostile.py has large inputs."""


LONGEST_RUN = 3
"""Seconds for one input."""


def main() -> None:
    """Fuzzes for some minutes, or replays files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to fuzz (default: 1)")
    parser.add_argument("--state", help="fuzz sessions in this state of the protocol; 'all': each for these minutes")
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help="judge these files instead of fuzzing")
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    if arguments.replay:
        replay(arguments.replay)
    elif arguments.state == "all":
        fuzz_all_states(arguments.minutes)
    elif arguments.state:
        fuzz_sessions(arguments.state, arguments.minutes)
    else:
        fuzz(arguments.minutes)


def replay(paths: list[Path]) -> None:
    """Judges files, with time and memory measured. The first failure ends the process with a traceback."""
    from fuzz.sessions import Fuzzed
    from fuzz.target import measure

    for path in paths:
        if path.parent.name == SESSION_FINDINGS.name:
            with Fuzzed(path.name.partition(",")[0]) as fuzzed:
                fuzzed(path.read_bytes())
        else:
            measure(path.read_bytes())
        sys.stdout.write(f"{path}: holds\n")


def fuzz(minutes: float) -> None:
    """Fuzzes. Does not return: libFuzzer ends the process, with exit status 0 if it found nothing."""
    atheris = load_atheris()
    with atheris.instrument_imports(include=["relay.judge", "relay.core"]):
        from fuzz.target import examine

    seeds = WORK / "seeds"
    kept = WORK / "kept"
    for folder in (seeds, kept, FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    for path in SEEDS.glob("*/*/*.eml"):
        (seeds / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    run_fuzzer(atheris, examine, minutes, words="mail.dict", prefix=f"{FINDINGS}/", folders=[kept, seeds, FINDINGS])


def fuzz_sessions(state: str, minutes: float) -> None:
    """Fuzzes sessions in a state. Does not return, as `fuzz`."""
    atheris = load_atheris()
    with atheris.instrument_imports(include=["relay.smtp", "relay.core", "aiosmtpd.proxy_protocol"]):
        from fuzz.sessions import Fuzzed
    kept = WORK / "sessions" / state
    for folder in (kept, SESSION_FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.CRITICAL)
    prefix = f"{SESSION_FINDINGS}/{state},"
    run_fuzzer(atheris, Fuzzed(state), minutes, words="sessions.dict", prefix=prefix, folders=[kept])


def fuzz_all_states(minutes: float) -> None:
    """Fuzzes each state in a process of its own, with its last line of statistics. Exits with 1 if any failed."""
    from fuzz.sessions import STATES

    failed = []
    for state in STATES:
        command = [sys.executable, __file__, "--minutes", str(minutes), "--state", state]
        ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        runs = re.search(r"stat::number_of_executed_units: *(\d+)", ran.stderr)
        kept = len(list((WORK / "sessions" / state).iterdir()))
        result = "holds" if ran.returncode == 0 else f"FAILED\n{ran.stderr[-4000:]}"
        sys.stdout.write(f"{state}: {runs[1] if runs else 'no'} inputs, {kept} kept, {result}\n")
        sys.stdout.flush()
        if ran.returncode:
            failed.append(state)
    sys.exit(bool(failed))


def load_atheris() -> Any:
    """Returns the module, or exits and says how to install it."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is missing: pip install --require-hashes -r requirements/fuzz.txt")
    return atheris


def run_fuzzer(
    atheris: Any, target: Callable[[bytes], None], minutes: float, *, words: str, prefix: str, folders: list[Path]
) -> None:
    """Runs libFuzzer, which ends the process."""
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={round(minutes * 60)}",
            f"-timeout={LONGEST_RUN}",
            "-rss_limit_mb=1024",
            f"-max_len={LONGEST_INPUT}",
            "-len_control=20",
            f"-dict={HERE / words}",
            f"-artifact_prefix={prefix}",
            "-print_final_stats=1",
            *map(str, folders),
        ],
        target,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
