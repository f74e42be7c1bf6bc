"""Fuzzes the judge with atheris, guided by coverage, and replays findings.

python tests/fuzz/run.py --minutes 30
python tests/fuzz/run.py --replay tests/fuzz/findings/*
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
SEEDS = HERE.parent / "corpus"
FINDINGS = HERE / "findings"
WORK = HERE.parents[1] / "var" / "fuzz"
LONGEST_INPUT = 32 * 1024
"""Bytes. Costs that grow faster than the input show at this size. test_hostile.py has large inputs."""


def main() -> None:
    """Fuzzes for some minutes, or replays files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to fuzz (default: 1)")
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help="judge these files instead of fuzzing")
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    if arguments.replay:
        replay(arguments.replay)
    else:
        fuzz(arguments.minutes)


def replay(paths: list[Path]) -> None:
    """Judges files, with time and memory measured. The first failure ends the process with a traceback."""
    from fuzz.target import measure

    for path in paths:
        measure(path.read_bytes())
        sys.stdout.write(f"{path}: holds\n")


def fuzz(minutes: float) -> None:
    """Fuzzes. Does not return: libFuzzer ends the process, with exit status 0 if it found nothing."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is missing: pip install --require-hashes -r requirements/fuzz.txt")
    with atheris.instrument_imports(include=["relay.judge", "relay.core"]):
        from fuzz.target import examine

    seeds = WORK / "seeds"
    kept = WORK / "kept"
    for folder in (seeds, kept, FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    for path in SEEDS.glob("*/*/*.eml"):
        (seeds / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={round(minutes * 60)}",
            "-timeout=3",
            "-rss_limit_mb=1024",
            f"-max_len={LONGEST_INPUT}",
            "-len_control=20",
            f"-dict={HERE / 'mail.dict'}",
            f"-artifact_prefix={FINDINGS}/",
            "-print_final_stats=1",
            str(kept),
            str(seeds),
            str(FINDINGS),
        ],
        examine,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
