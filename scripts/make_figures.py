"""Redraw figures under ``results/`` from their tables, without training.

usage: python scripts/make_figures.py [PAPER | PAPER/FIGURE ...] [--results DIR]; all figures unless some are named
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.errors import UserError
from experiments.figures.names import named, runs_in_words

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Redraw figures; the exit code: 2 if a file of a figure is missing or damaged, 1 after a bug."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a paper or a figure, for instance nullspace/fig8")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the figures")
    options = parser.parse_args(arguments)
    try:
        wanted = named(options.names) if options.names else []
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # A folder of pictures whose provenance is missing is told, too.
    there = sorted({path.parent for name in ("provenance.json", "*.pdf") for path in options.results.rglob(name)})
    folders = [folder for folder in there if not wanted or _figure(folder, options.results) in wanted]
    codes = {0}
    from experiments.figures.redraw import redraw_all

    for done in redraw_all(folders):
        for path in done.pictures:
            print(path, flush=True)
        if done.mistake:
            print(f"error: {done.mistake}", file=sys.stderr)
            codes.add(2)
        if done.bug:
            print(f"error: '{done.folder}' cannot be drawn, which is a bug:\n{done.bug}", file=sys.stderr)
            codes.add(1)
    known = {_figure(folder, options.results) for folder in there}
    lacking = [name for name in wanted or _all() if name not in known]
    if wanted:
        for name in lacking:
            print(f"{'error' if name in options.names else 'note'}: {_how_to_get(name)}", file=sys.stderr)
            codes.add(2 if name in options.names else 0)
    elif not there:
        print(f"no figure under '{options.results}' yet; make one with: python run.py figure=nullspace/fig8")
    elif lacking:
        print(f"note: no table yet of {', '.join(lacking)}; make reproduce FIG=NAME makes the runs of one")
    return max(codes - {2}) or max(codes)


def _figure(folder: Path, results: Path) -> str:
    return folder.relative_to(results).as_posix()


def _all() -> list[str]:
    from experiments.configuration.options import options

    return named(sorted({name.partition("/")[0] for name in options()["figure"]}))


def _how_to_get(name: str) -> str:
    from omegaconf import OmegaConf

    from experiments.figures.composition import compose_config
    from experiments.figures.redraw import configurations

    with configurations():
        grids = OmegaConf.to_container(compose_config([f"figure={name}"]).figure.runs, resolve=True)
    return f"'{name}' has no table; {runs_in_words(grids)}; make it with: make reproduce FIG={name}"  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
