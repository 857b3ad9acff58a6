"""Download data sets, verify them and store them: ``python scripts/fetch_data.py NAME... | all``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from experiments.data.fetch import fetch
from experiments.data.published import KNOWN, STORED, stored_files
from experiments.errors import UserError, one_of


def main(argv: list[str] | None = None) -> int:
    """Fetch the sets that are named; 0 if all are present in the end, else 2."""
    parser = argparse.ArgumentParser(description="Download, verify and store data sets.")
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or some of: {', '.join(KNOWN)}")
    default = os.environ.get("TELEPORT_DATA", "data")
    parser.add_argument("--root", type=Path, default=Path(default), help=f"where to store them (default: {default})")
    arguments = parser.parse_args(argv)
    names = STORED if "all" in arguments.names else list(dict.fromkeys(arguments.names))
    for name in arguments.names:  # before anything is downloaded
        if name not in (*KNOWN, "all"):
            print(one_of("data set", name, [*KNOWN, "all"]), file=sys.stderr)
            return 2

    failed = False
    for name in names:
        try:
            print(f"{name}: {fetched(name, arguments.root)}", flush=True)
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed = True
    return 2 if failed else 0


def fetched(name: str, root: Path) -> str:
    """Fetch one set if it is absent; a phrase that says what happened."""
    files = stored_files(name, root)
    if not files:
        return "needs no file"
    place = files[0] if files[0].parent == root else files[0].parent
    if all(path.is_file() for path in files):
        return f"is at {place} already; delete that to fetch it again"
    print(f"{name}: fetching", flush=True)
    fetch(name, root)
    return f"stored at {place}"


if __name__ == "__main__":
    sys.exit(main())
