"""Prints the branch coverage of each package of the relay, and exits 1 if one is below the limit.

python tests/coverage_report.py combines what `coverage run` has left in this folder. For a package below the limit it
lists the lines that no test runs. A line that needs no test carries `# pragma: no cover - REASON`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

LIMIT = 95.0
"""Percent of statements and branches together."""


def measured() -> dict[str, Any]:
    """Returns coverage's figures for each file, by path."""
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "--quiet"], check=False)  # fails if that was done before
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run([*coverage, "json", "--quiet", "-o", report.name], check=True)
        files: dict[str, Any] = json.loads(Path(report.name).read_text())["files"]
    return files


def package_of(path: str) -> str:
    parts = Path(path).parts
    return f"{parts[0]}.{parts[1]}" if len(parts) > 2 else parts[0]


def main() -> int:
    files = measured()
    packages: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for path, file in files.items():
        packages[package_of(path)].update(file["summary"])
    low = set()
    print(f"{'package':<20} {'statements':>10} {'branches':>10} {'covered':>10}")
    for name, sums in sorted(packages.items()):
        total = sums["num_statements"] + sums["num_branches"]
        percent = 100 * (sums["covered_lines"] + sums["covered_branches"]) / total if total else 100.0
        print(f"{name:<20} {sums['num_statements']:>10} {sums['num_branches']:>10} {percent:>9.1f}%")
        if percent < LIMIT:
            low.add(name)
    for path, file in sorted(files.items()):
        if package_of(path) in low and (file["missing_lines"] or file["missing_branches"]):
            branches = " ".join(f"{start}->{end}" for start, end in file["missing_branches"])
            print(f"\n{path}\n  lines {' '.join(map(str, file['missing_lines']))}\n  branches {branches}")
    if low:
        print(f"\nBelow {LIMIT:g} %: {', '.join(sorted(low))}", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    raise SystemExit(main())
