"""Mutation testing of ``teleport/``: change one operator, number or condition at a time and see whether a test fails.

usage: python scripts/mutation.py [--sample N] [--seed S] [--jobs J] [--only PATH] [--budget SECONDS] [--retry]
       [--report] [--root CHECKOUT] [--results FILE] [--cache FOLDER]

Places of ``teleport/`` that cosmic-ray's operators change (and three of ours) are drawn uniformly, then one change of
each. Left out are annotations, aliases of types, names that are exported, words of messages, ``assert``,
``zip(strict=True)`` and ``frozen=True``. A mutant is killed by the first test that fails of those that run its line
(tests of ``tests/teleport`` that are not slow); which these are is collected once with coverage's contexts. Each mutant
takes a fork of a process that has imported torch, so that it costs no start. Results are one line of JSON per mutant;
a second call does what is missing, and ``--retry`` the survivors again, after new tests.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import argparse
import hashlib
import itertools
import json
import math
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

try:
    import cosmic_ray
    import pytest_cov
except ImportError:
    cosmic_ray = pytest_cov = None
else:
    from scripts._mutation.covering import CoveringTests, covering_tests
    from scripts._mutation.population import Mutant, sample
    from scripts._mutation.trial import Outcome, prepare, run_tests

ROOT = Path(__file__).resolve().parent.parent
FIRST_SECONDS = 1.0
"""Seconds of tests that a mutant meets first; one fork more for the rest, if it survives them."""

Record = dict[str, Any]


def judge(root: Path, mutant: Mutant, covering: CoveringTests, budget: float) -> Outcome:
    """Run the tests that cover a mutant, the short ones first, as many as take ``budget`` seconds without it."""
    tests = covering.of(mutant.file, mutant.lines)
    ends = itertools.accumulate(covering.seconds[name] for name in tests)
    tests = [name for name, end in zip(tests, ends, strict=True) if end <= budget] or tests[:1]
    if not tests:
        return Outcome(False, "no test runs this line", 0)
    spent, first = 0.0, 0
    while first < len(tests) and spent <= FIRST_SECONDS:
        spent += covering.seconds[tests[first]]
        first += 1
    total = 0
    for batch in (tests[:first], tests[first:]):
        if batch:
            limit = 20 + 10 * sum(covering.seconds[name] for name in batch)
            outcome = run_tests(root, batch, mutant, limit)
            total += outcome.tests
            if outcome.killed:
                return Outcome(True, outcome.by, total)
    return Outcome(False, "", total)


def named(root: Path, mutant: Mutant) -> str:
    """What names a mutant in the results: the place, the operator, and the source that it changes."""
    return f"{mutant.key}:{hashlib.sha256((root / mutant.file).read_bytes()).hexdigest()[:8]}"


def work(root: Path, mutants: list[Mutant], covering: CoveringTests, budget: float, results: Path) -> None:
    """Judge mutants one after another and append each result."""
    commit = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    for mutant in mutants:
        started = time.monotonic()
        outcome = judge(root, mutant, covering, budget)
        record = {
            "mutant": named(root, mutant),
            "outcome": "killed" if outcome.killed else "survived",
            "by": outcome.by,
            "tests": outcome.tests,
            "covering": len(covering.of(mutant.file, mutant.lines)),
            "diff": mutant.diff,
            "seconds": round(time.monotonic() - started, 1),
            "commit": commit,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with results.open("ab", buffering=0) as stream:
            stream.write(json.dumps(record).encode() + b"\n")
        print(f"{record['outcome']:8} {record['seconds']:6.1f} s  {mutant.key}  {outcome.by}", flush=True)


def read(results: Path) -> dict[str, Record]:
    """The last record of each mutant; a line that a kill cut off is none."""
    records: dict[str, Record] = {}
    for line in results.read_text().splitlines() if results.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        records[record["mutant"]] = record
    return records


def report(root: Path, mutants: list[Mutant], places: int, records: dict[str, Record]) -> str:
    """The score and the survivors with their diffs."""
    done = [records[key] for key in map(named, [root] * len(mutants), mutants) if key in records]
    survivors = [record for record in done if record["outcome"] == "survived"]
    lines = [
        f"{record['mutant']} ({record['tests']} of {record['covering']} tests) {record['by']}\n{record['diff']}\n"
        for record in survivors
    ]
    killed = len(done) - len(survivors)
    share = f" ({killed / len(done):.1%})" if done else ""
    lines.append(f"{killed} of {len(done)} mutants killed{share}; {len(mutants)} sampled of {places} places")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Judge what is missing of a sample and print the score."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, default=400, help="how many mutants (400)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample; a larger one contains a smaller one (0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument(
        "--only", default="teleport/", metavar="PATH", help="sample files whose path begins so (teleport/)"
    )
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="seconds of tests per mutant (all that cover it)"
    )
    parser.add_argument("--retry", action="store_true", help="judge survivors again")
    parser.add_argument("--report", action="store_true", help="print the score of what is done, and run nothing")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the checkout whose teleport/ and tests/ are used (this one)"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "mutation" / "mutants.jsonl")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "mutation", help="the folder of covering tests")
    given = parser.parse_args(arguments)
    if cosmic_ray is None:
        parser.error("cosmic-ray and pytest-cov are not installed; run pip install -e '.[mutation]'")
    if given.sample < 1 or given.jobs < 1:
        parser.error("--sample and --jobs take whole numbers of at least 1")
    root, results, cache = given.root.resolve(), given.results.resolve(), given.cache.resolve()

    if not any(str(file.relative_to(root)).startswith(given.only) for file in (root / "teleport").rglob("*.py")):
        parser.error(f"no file of {root / 'teleport'} begins with '{given.only}'")
    mutants, places = sample(root, given.only, given.sample, given.seed)
    if not given.report:
        prepare()
        covering = covering_tests(root, cache)
        known = read(results)
        kept = {key for key, record in known.items() if not (given.retry and record["outcome"] == "survived")}
        missing = [mutant for mutant in mutants if named(root, mutant) not in kept]
        results.parent.mkdir(parents=True, exist_ok=True)
        children = []
        for job in range(given.jobs):
            children.append(os.fork())
            if children[-1] == 0:
                work(root, missing[job :: given.jobs], covering, given.budget, results)
                os._exit(0)
        codes = [os.waitpid(child, 0)[1] for child in children]
        if any(codes):
            return 1
    print(report(root, mutants, places, read(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
