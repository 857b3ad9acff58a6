"""Measure speeds on this machine, write the tables, and print ratios first.

usage: python scripts/benchmark.py SUBJECT... | aims | all [--smoke] [--repeats N] [--threads N] [--device DEVICE]

`--help` lists the subjects. Nothing else should run on the machine. `aims` measures nothing: it reads the existing
tables and says which aim is met. `all` is every subject, followed by `aims`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import files
from experiments.benchmarks import SUBJECTS
from experiments.configuration.bounds import COUNT, PROCESSORS
from experiments.errors import UserError, one_of

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
AIMS = "aims"


def main(arguments: list[str]) -> int:
    """Measure, write and print; the exit code."""
    told = {**SUBJECTS, AIMS: "which aim is met, according to the existing tables"}
    subjects = "\n".join(f"  {name:<17} {what}" for name, what in told.items())
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog=f"subjects:\n{subjects}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subjects", nargs="+", metavar="SUBJECT", help="all, or some of those below")
    parser.add_argument("--smoke", action="store_true", help="tiny cases, in seconds: a check that it works")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of measurement; medians are over them (5)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "benchmark", help="folder of the tables")
    given = parser.parse_args(arguments)
    for option, count, bounds in (("--repeats", given.repeats, COUNT), ("--threads", given.threads, PROCESSORS)):
        if not bounds.hold(count):
            parser.error(f"{option} must be {bounds}, not {count}")
    try:
        _measure(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(given: argparse.Namespace) -> None:
    """Each subject in turn; what is done is written before the next one starts."""
    for name in given.subjects:
        if name not in (*SUBJECTS, AIMS, "all"):
            raise one_of("subject", name, [*SUBJECTS, AIMS, "all"])
    with files.writing(given.results):  # before minutes are spent
        given.results.mkdir(parents=True, exist_ok=True)

    import torch

    from experiments.benchmarks.aims_table import write_aims
    from experiments.benchmarks.common import Settings
    from experiments.benchmarks.tables import record

    if given.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"--device {given.device} needs a CUDA device, and torch sees none; use --device cpu")
    if given.threads:
        torch.set_num_threads(given.threads)
    settings = Settings(given.repeats, given.smoke, torch.device(given.device))
    for name in [*SUBJECTS, AIMS] if "all" in given.subjects else dict.fromkeys(given.subjects):
        if name == AIMS:
            _print(write_aims(given.results, given.smoke))
            continue
        print(f"{name}: {SUBJECTS[name]}", flush=True)
        _print(record(name, settings, given.results))


def _print(tables: dict[str, pd.DataFrame]) -> None:
    """Each table under its heading."""
    for heading, table in tables.items():
        print(f"\n{heading}:\n{table.to_string(index=False, float_format='%.3g')}", flush=True)
    print()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
