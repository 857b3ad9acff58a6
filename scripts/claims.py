"""Judge the papers' claims on the tables under ``results/``, without training; writes ``claims.csv`` and ``claims.md``.

usage: python scripts/claims.py [RESULTS]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from experiments import files
from experiments.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Judge every claim; the exit code: 2 if a ledger has a mistake or a table cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="?", type=Path, default=ROOT / "results", help="folder of the tables")
    results = parser.parse_args(arguments).results
    if not results.is_dir():
        print(
            f"error: there is no folder '{results}' of results; name the one with the figures' tables", file=sys.stderr
        )
        return 2
    from experiments.claims import page, understood
    from experiments.claims.judging import judge_all

    try:
        judged, errors = judge_all(ROOT, results, (ROOT / "conf" / "claims").glob("*.yaml"))
        files.write_csv(results / "claims.csv", page.COLUMNS, page.rows(judged))
        files.write_text(results / "claims.md", page.page(judged, understood.read(results)))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    counts = Counter(each.verdict.verdict for each in judged)
    print(f"{results / 'claims.md'}: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    return 2 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
