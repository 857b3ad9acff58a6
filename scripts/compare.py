"""Print a figure's methods side by side: losses after the same epochs and after the same seconds.

usage: python scripts/compare.py results/nullspace/gain
       python scripts/compare.py results/nullspace/lead --rates train_loss
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.errors import UserError


def main(arguments: list[str]) -> int:
    """Print the comparison of a figure's table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a figure's folder under results/")
    parser.add_argument(
        "--rates",
        choices=("train_loss", "test_loss"),
        help="of a figure of rates: gentle teleports against each control, paired by seed, with 95 %% intervals",
    )
    given = parser.parse_args(arguments)
    from experiments.figures import compare, table
    from experiments.figures.subjects import rates

    try:
        rows = table.read(given.folder / f"{given.folder.name}.csv")
        compared = rates.compared(rows, given.rates) if given.rates else compare.compare(rows)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(compared.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
