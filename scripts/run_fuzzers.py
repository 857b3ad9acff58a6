"""Run the fuzzers of ``scripts/fuzz/``, each in a process of its own.

    python scripts/run_fuzzers.py                                    # all of them, with their default number of cases
    python scripts/run_fuzzers.py command_line --cases 2000 --seed 7

A fuzzer is a file ``scripts/fuzz/<name>.py``, called with ``--cases N --seed S``. It prints what it tried and what it
found, and exits with 1 on a finding. This script exits with 1 if one of them does not exit with 0.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "scripts" / "fuzz"


def fuzzers() -> dict[str, Path]:
    """Name -> file of each fuzzer; names that begin with an underscore are parts of one."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.py")) if not file.name.startswith("_")}


def main(arguments: list[str]) -> int:
    """Run the fuzzers that are named, or all; the exit code."""
    known = fuzzers()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(known)} (all)")
    parser.add_argument("--cases", type=int, help="cases per fuzzer (default: each one's own)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases (0)")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"unknown fuzzer '{unknown[0]}'; there are {', '.join(known)}")
    if given.cases is not None and given.cases < 1:
        parser.error("--cases takes a whole number of at least 1")
    if given.seed < 0:
        parser.error("--seed takes a whole number from 0")

    codes = {}
    for name in given.names or list(known):
        options = ["--seed", str(given.seed), *(["--cases", str(given.cases)] if given.cases else [])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        started = time.monotonic()
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, str(known[name]), *options], cwd=ROOT, env=environment, check=False)
        codes[name] = done.returncode
        print(f"== {name}: exit code {codes[name]} after {time.monotonic() - started:.0f} s", flush=True)
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
