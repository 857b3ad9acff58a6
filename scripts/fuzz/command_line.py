"""Fuzz the command line: keys of the real schemas with awkward values, deletions, additions, sweeps, broken quotes.

usage: python scripts/fuzz/command_line.py [--cases N] [--seed S] [--verbose]

Each case is given to the function of ``run.py`` in this process, up to the training; a case of small numbers trains two
steps on the embedded digits. What must hold: no traceback; an exit code that says what happened; a refusal is one
sentence that names a key, and writes nothing; and the same values in an experiment file are refused or accepted alike,
and give the same run. Each finding is printed with its command line. The exit code is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
import warnings
from collections import Counter

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from scripts.fuzz._command_line.overrides import Case, cases
from scripts.fuzz._command_line.trial import findings


def main(arguments: list[str]) -> int:
    """Try the cases, print findings and counts; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000, help="how many (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (0)")
    parser.add_argument("--verbose", action="store_true", help="print each case")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.raiseExceptions = False  # log handlers of an earlier case may hold its closed stream
    warnings.simplefilter("ignore")
    started, found, tried = time.perf_counter(), Counter[str](), 0

    @seed(chosen.seed)
    @settings(
        max_examples=chosen.cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(), st.booleans())
    def fuzz(case: Case, train: bool) -> None:
        nonlocal tried
        tried += 1
        if chosen.verbose:
            print(shlex.join(case.overrides), flush=True)
        for finding in findings(case, train):
            kind = finding.partition("\n")[0]
            found[kind] += 1
            if found[kind] == 1:
                print(f"FOUND {finding}\n  python run.py {shlex.join(case.overrides)}", flush=True)

    fuzz()
    print(
        f"{tried} command lines from seed {chosen.seed}: {sum(found.values())} findings, {len(found)} of them different"
    )
    print(f"{time.perf_counter() - started:.0f} s")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
