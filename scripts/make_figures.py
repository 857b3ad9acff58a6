"""Redraw every figure under ``results/`` from its table, in seconds, without training.

usage: python scripts/make_figures.py [RESULTS]
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from hydra import initialize_config_dir

from experiments.configuration import config
from experiments.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Redraw all figures; the exit code: 2 if a file of a figure is missing or damaged, 1 after a bug."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="?", type=Path, default=ROOT / "results", help="folder of the figures")
    results = parser.parse_args(arguments).results
    # A folder of pictures whose provenance is missing is told, too.
    folders = sorted({path.parent for name in ("provenance.json", "*.pdf") for path in results.rglob(name)})
    if not folders:
        print(f"no figure under '{results}' yet; make one with: python run.py figure=nullspace/fig8")
        return 0

    from experiments.figures.redraw import redraw

    config.register()
    codes = {0}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for folder in folders:
            try:
                for path in redraw(folder):
                    print(path)
            except UserError as error:
                print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
                codes.add(2)
            except Exception:  # a bug in one drawing must not keep the others from being drawn
                print(f"error: '{folder}' cannot be drawn, which is a bug:", file=sys.stderr)
                traceback.print_exc()
                codes.add(1)
    return max(codes - {2}) or max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
