"""Show any runs side by side: curves in epochs and seconds, teleports, and what differs in their settings.

usage: python scripts/show.py RUN...                             folders of runs, or a folder with runs in it
       python scripts/show.py data=mnist optimizer.lr=0.01,0.1   those under --runs DIR that meet all conditions

Prints a table, and writes show.png and, with plotly (pip install -e '.[show]'), show.html: one file that needs no
network. Values of conditions may have the wildcards * and ?.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.errors import UserError


def main(arguments: list[str]) -> int:
    """Print the table and write the pictures; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("words", nargs="*", metavar="RUN | KEY=VALUE", help="folders of runs, and conditions")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are looked for (runs)")
    parser.add_argument(
        "--out", type=Path, default=Path("show"), help="the files to write, without their ending (show)"
    )
    given = parser.parse_args(arguments)
    from experiments import files
    from experiments.show.choose import choose
    from experiments.show.differences import differing, lines
    from experiments.show.picture import draw
    from experiments.show.summary import summary

    try:
        runs = choose(given.words, given.runs)
        keys = differing(runs)
        found = lines(runs, keys)
        print(summary(runs, keys))
        png, page = (given.out.with_name(f"{given.out.name}.{ending}") for ending in ("png", "html"))
        files.write_bytes(png, draw(found))
        print(f"\n{png}")
        from experiments.show.page import write

        files.write_text(page, write(found, keys))
        print(page)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
