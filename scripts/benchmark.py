"""Measure how long teleports take on this machine, write the table, and print ratios and exponents.

usage: python scripts/benchmark.py runtime [--smoke] [--repeats N] [--threads N] [--device DEVICE] [--results FOLDER]

Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments import files  # noqa: E402
from experiments.errors import UserError  # noqa: E402


def main(arguments: list[str]) -> int:
    """Measure, write and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["runtime"], help="seconds of a teleport: null space and symmetry")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, in seconds: whether it works")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that the median is over (5)")
    parser.add_argument("--threads", type=int, help="of torch; its own choice where left out")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "benchmark", help="where the table goes")
    given = parser.parse_args(arguments)
    if given.repeats < 1:
        parser.error("--repeats takes a whole number of at least 1")
    try:
        _runtime(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _runtime(given: argparse.Namespace) -> None:
    import pandas as pd
    import torch

    from experiments import benchmark

    if given.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"--device {given.device} needs a CUDA device, and torch sees none; use --device cpu")
    with files.writing(given.results):  # before minutes are spent
        given.results.mkdir(parents=True, exist_ok=True)
    if given.threads:
        torch.set_num_threads(given.threads)
    cases = benchmark.SMOKE if given.smoke else benchmark.FULL
    rows: list[dict[str, Any]] = []
    for row in benchmark.measure(cases, given.repeats, torch.device(given.device)):
        rows.append(row)
        case = "  ".join(f"{axis} {row[axis]:>4}" for axis in ("width", "samples", "layers", "batches", "steps"))
        print(f"{case}  {row['method']:<18} {row['seconds']:9.4f} s  {row['steps_taken']:>3} steps", flush=True)
    path = given.results / f"runtime-{benchmark.slug(rows[0]['hardware'])}{'-smoke' if given.smoke else ''}.csv"
    files.write_csv(path, benchmark.COLUMNS, rows)
    table = pd.DataFrame(rows)
    print("\nseconds, in units of null space at threshold 0.999:")
    print(benchmark.ratios(table).to_string(index=False, float_format="%.2f"))
    print("\nexponents (1 is linear):")
    print(benchmark.slopes(table, benchmark.base_of(cases)).to_string(index=False, float_format="%.2f"))
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
