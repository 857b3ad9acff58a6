"""Make figures of the papers: the runs that they need, their tables and their pictures.

usage: python scripts/reproduce.py PAPER | PAPER/FIGURE ... [KEY=VALUE ...], for instance: nullspace scale=smoke
       python scripts/reproduce.py nullspace/fig8 hydra/launcher=slurm hydra.launcher.partition=gpu

Figures are made in order. A figure that fails does not stop the others. A run that exists already, from an earlier
figure or an earlier call, is not made again: the same command continues where it was stopped. A launcher of Hydra makes
the missing runs of a figure as one sweep; then the figure is measured and drawn here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.configuration import config, options
from experiments.configuration.mistakes import of_command_line
from experiments.configuration.scalars import check_overrides
from experiments.errors import UserError
from experiments.figures.names import named
from experiments.figures.provenance import missing
from experiments.run.sweep import log_to_console


def main(arguments: list[str]) -> int:
    """Make each figure and list the outcomes; the exit code, 1 if one or a run of one failed, 2 for an unknown name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    told = "a folder or a file under conf/figure, or an override of all runs, as for run.py"
    parser.add_argument("words", nargs="+", metavar="NAME | KEY=VALUE", help=told)
    words = parser.parse_args(arguments).words
    overrides = [word for word in words if "=" in word]
    try:
        figures = named([word for word in words if "=" not in word])
        check_overrides(overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        outcomes = {figure: made(figure, overrides) for figure in figures}
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 130
    print()
    lacks = {figure: lack(outcome) for figure, outcome in outcomes.items()}
    for figure, outcome in outcomes.items():
        folder = str(outcome) if isinstance(outcome, Path) else ""
        print(f"{figure}: {'; '.join(filter(None, [folder, lacks[figure]]))}")
    return int(any(lacks.values()))


def lack(outcome: Path | UserError) -> str:
    """What a figure lacks: all of it, or some of its runs; empty for a whole one."""
    if not isinstance(outcome, Path):
        return f"failed: {outcome}"
    count = missing(outcome)
    return f"{count} of its runs are missing" if count else ""


def made(figure: str, overrides: list[str]) -> Path | UserError:
    """Make one figure; its folder, or why there is none."""
    from hydra import initialize_config_dir

    from experiments.command_line.figure_runs import is_of_hydra, launcher_of
    from experiments.command_line.job import job
    from experiments.figures.build import build

    print(f"\n{figure}", flush=True)
    log_to_console()
    config.register()
    try:
        with initialize_config_dir(str(options.CONF), version_base="1.3"):
            own = [override for override in overrides if not is_of_hydra(override)]
            return build([f"figure={figure}", *own], launcher_of(overrides, job))
    except Exception as error:
        mistake = of_command_line(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return mistake


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
