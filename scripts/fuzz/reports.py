"""Fuzz the methods: random networks with awkward parts, random settings, and what must hold of every call.

usage: python scripts/fuzz/reports.py [--cases N] [--seed S] [--methods M] [--verbose]

A case is a network, a loss and batches, all functions of its seed. On each, some methods are called with random
settings: as they are, twice, as a preview, with exceptions raised in the loss, the model and the callback, and with a
callback that ends the event. What must hold is in ``_reports/checks.py``: the report says what happened, what happened
is what the method promises, and nothing else changed. Each finding is printed with the seed that shows it again. The
exit code is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
import warnings
from collections import Counter

import torch

from scripts.fuzz._reports.cases import draw_case
from scripts.fuzz._reports.methods import METHODS
from scripts.fuzz._reports.scenarios import Trial, sensible


def main(arguments: list[str]) -> int:
    """Run the cases, print findings and counts; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=200, help="how many (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow (0)")
    parser.add_argument("--methods", type=int, default=3, help="how many methods are called on a case (3)")
    parser.add_argument("--only", help="a method that is always called, and no other")
    parser.add_argument("--verbose", action="store_true", help="print each case, and the reasons of refusals")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in METHODS}
    findings, sane, start = 0, 0, time.perf_counter()
    for seed in range(chosen.seed, chosen.seed + chosen.cases):
        found, ran = fuzz(seed, chosen.methods, chosen.only, outcomes, chosen.verbose)
        findings, sane = findings + found, sane + ran
    print(f"{chosen.cases} cases from seed {chosen.seed}, {sane} of them can be evaluated and differentiated")
    kinds = ("moved", "stayed", "rolled back", "refused")
    print(f"{'method':<16}" + "".join(f"{kind:>13}" for kind in kinds))
    for name, counts in outcomes.items():
        print(f"{name:<16}" + "".join(f"{counts[kind]:>13}" for kind in kinds))
    if chosen.verbose:
        for name, counts in outcomes.items():
            for kind, count in counts.most_common():
                if kind.startswith("refused: "):
                    print(f"{count:>6} {name} {kind}")
    print(f"{findings} findings in {time.perf_counter() - start:.0f} s")
    return int(findings > 0)


def fuzz(seed: int, count: int, only: str | None, outcomes: dict[str, Counter[str]], verbose: bool) -> tuple[int, bool]:
    """One case; the number of findings, and whether the case can be evaluated at all."""
    case = draw_case(seed)
    if verbose:
        print(f"seed {seed}: {case}", flush=True)
    if not sensible(case):
        return 0, False
    names = [only] if only else random.Random(seed).sample(list(METHODS), count)
    found = 0
    for name in names:
        trial = Trial(case, name)
        try:
            trial.run()
        except Exception:  # of the fuzzer itself: a finding as well, to be looked at
            trial.findings.append(f"the fuzzer failed: {traceback.format_exc(limit=-3)}")
        outcomes[name] += trial.outcomes
        for finding in trial.findings:
            print(f"seed {seed}, {trial.drawn}, {trial.around or 'plain'} call, {case}\n    {finding}", flush=True)
        found += len(trial.findings)
    return found, True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
