"""Write the report: a static site of every figure, verdict and finding, from conf/ and results/, without torch.

usage: python scripts/report.py [RESULTS] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Write the site and print its first page; the exit code, 2 if something that it shows is missing or damaged."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="?", type=Path, default=ROOT / "results", help="folder of the figures")
    parser.add_argument("--output", type=Path, help="folder of the site; RESULTS/report unless given")
    options = parser.parse_args(arguments)
    from experiments.report.site import make

    try:
        print(make(options.results, options.output or options.results / "report"))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
