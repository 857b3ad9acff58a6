"""Check that a sweep with a failing run is right under every installed launcher: exit code, table and progress.

    pip install -e '.[launchers]'
    python scripts/check_launchers.py                   # basic, machine.jobs, joblib, submitit_local, ray
    python scripts/check_launchers.py joblib ray

Prints the end of each sweep's text; exits with 1 if one of them is wrong. A launcher that is not installed is wrong.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LAUNCHERS = {
    "basic": [],
    "machine.jobs": ["machine.jobs=2"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local"],
    "ray": ["hydra/launcher=ray"],
}

SWEEP = ["data=digits", "scale=smoke", "machine.threads=1", "optimizer.lr=0.1,-1", "seed=0,1"]
"""Four small runs; the two with a negative rate fail."""


def check(launcher: str, runs: Path) -> list[str]:
    """What is wrong with the sweep under ``launcher``."""
    command = [sys.executable, "run.py", "-m", *SWEEP, f"machine.runs={runs}", *LAUNCHERS[launcher]]
    started, environment = time.monotonic(), os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    print(
        f"== {launcher}: exit code {result.returncode} after {seconds:.0f} s",
        *result.stdout.splitlines()[-14:],
        sep="\n",
    )
    tables = [path for path in (runs / "sweeps").glob("*.csv") if not path.stem.endswith("-seeds")]
    if len(tables) != 1:
        return [f"{len(tables)} tables", result.stderr[-2000:]]
    with tables[0].open() as file:
        rows = list(csv.DictReader(file))
    wrong = []
    if result.returncode != 1:
        wrong.append(f"exit code {result.returncode}, not 1")
    if [bool(row["error"]) for row in rows] != [False, False, True, True]:
        wrong.append(f"the table has {rows}")
    if "4 runs, 2 failed" not in result.stdout:
        wrong.append("the table is not printed")
    if result.stdout.count("optimizer.lr must be a number") < 4:  # as they fail, and in the table
        wrong.append("failures are not told of")
    return wrong


def main(arguments: list[str]) -> int:
    """Check the launchers that are named, or all; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("launchers", nargs="*", metavar="LAUNCHER", help=f"some of: {', '.join(LAUNCHERS)} (all)")
    named = parser.parse_args(arguments).launchers
    for launcher in named:
        if launcher not in LAUNCHERS:
            parser.error(f"unknown launcher '{launcher}'; there are {', '.join(LAUNCHERS)}")
    failed = False
    for launcher in named or list(LAUNCHERS):
        with tempfile.TemporaryDirectory() as runs:
            for sentence in check(launcher, Path(runs)):
                print(f"WRONG under {launcher}: {sentence}")
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
