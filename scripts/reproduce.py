"""Make a figure: the runs that it needs, its table and its picture.

usage: python scripts/reproduce.py nullspace/fig8 [quick] [KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Hand the figure to ``run.py``; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("figure", help="a file under conf/figure, for instance nullspace/fig8")
    parser.add_argument("scale", nargs="?", default="quick", help="smoke, quick (default) or paper")
    parser.add_argument("overrides", nargs="*", help="for run.py, for instance machine.jobs=2")
    chosen = parser.parse_args(arguments)
    command = [sys.executable, str(ROOT / "run.py"), f"figure={chosen.figure}", f"scale={chosen.scale}"]
    return subprocess.run([*command, *chosen.overrides], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
