"""What can be chosen: the options of each group under ``conf/``."""

from __future__ import annotations

from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"

HELP = """\
Train a model with or without teleportation and record it.

usage: python run.py [GROUP=OPTION ...] [KEY=VALUE ...]

Groups (one of each, the default in brackets):
{listing}

Examples:
  python run.py                                              digits, mlp, sgd, no teleport
  python run.py model=cnn data=cifar10 teleport=nullspace    one run with teleports
  python run.py experiment=nullspace/mlp_mnist scale=smoke   a panel of the paper, in seconds
  python run.py -m teleport=none,nullspace seed=0,1,2        a sweep: one run for each combination
  python run.py -m teleport=none,nullspace machine.jobs=4    its runs side by side, up to four at a time
  python run.py figure=nullspace/fig8                        a figure, with the runs that it needs

Any key of the configuration can be set, for instance optimizer.lr=0.1 training.epochs=3 machine.runs=/tmp/runs.
See the whole configuration with:  python run.py --cfg job --resolve [GROUP=OPTION ...]

A sweep prints a table, writes it under <machine.runs>/sweeps, and exits with 1 if a run failed or all diverged; one run
exits with 1 if it diverged. A mistake is one sentence and exit code 2. Besides machine.jobs,
which runs several at a time on this machine, it takes launchers of Hydra (pip install -e .[launchers]): cores, slurm,
submitit, ray_local and ray_cluster, under which a run whose process is killed is launched again and costs no other run:
  python run.py -m seed=0,1,2 hydra/launcher=cores hydra.launcher.n_jobs=3
  python run.py -m seed=0,1,2 hydra/launcher=slurm hydra.launcher.partition=gpu

Options of your own: python run.py -cd DIR ..., where DIR/model/mine.yaml is model=mine; -cd DIR --help lists them too.
Completion in bash:  eval "$(python run.py -sc install=bash)"     (also zsh, fish)

A run's folder is named by what it computes, under machine.runs. Running the same again only says where it is;
a stopped run goes on from its last checkpoint.
"""
"""What ``run.py --help`` says. Hydra's own way takes far longer: it lists every group for a text that is not shown."""


NO_GROUPS = ("hydra", "claims")
"""Folders of ``conf/`` that hold no options: Hydra's own settings, and the ledgers of claims."""

folders = [CONF]
"""Where options are looked for: ``conf/``, and the folder of the user's own (``-cd``)."""


def use_folder(own: str | None) -> None:
    """Look for options in the folder ``own`` as well, as Hydra does with ``-cd``; in ``conf/`` alone if ``None``."""
    folders[:] = [CONF] if own is None else [CONF, Path(own)]


def options() -> dict[str, list[str]]:
    """Group -> the names that ``group=name`` takes, as the files under ``conf/`` and the user's own folder are."""
    groups = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name not in NO_GROUPS)
    return {group: sorted({name for folder in folders for name in _names(folder / group)}) for group in groups}


def _names(group: Path) -> list[str]:
    return [file.relative_to(group).with_suffix("").as_posix() for file in group.rglob("*.yaml")]


def listing(width: int = 110) -> str:
    """The options of every group as text, one paragraph per group, with the group's default in brackets."""
    import textwrap

    import yaml

    first = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    defaults = {group: name for entry in first if isinstance(entry, dict) for group, name in entry.items()}
    lines = []
    for group, names in options().items():
        marked = [f"[{name}]" if name == defaults.get(group) else name for name in names]
        text = textwrap.fill("  ".join(marked), width - 14, break_on_hyphens=False)
        lines.append(f"  {group:<12}" + text.replace("\n", "\n" + " " * 14))
    return "\n".join(lines)


def usage() -> str:
    """The text of ``run.py --help``."""
    return HELP.format(listing=listing())
