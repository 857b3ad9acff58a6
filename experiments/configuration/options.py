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
  python run.py figure=nullspace/fig8                        a figure, with the runs that it needs

Any key of the configuration can be set, for instance optimizer.lr=0.1 training.epochs=3 machine.runs=/tmp/runs.
See the whole configuration with:  python run.py --cfg job --resolve [GROUP=OPTION ...]

A run's folder is named by what it computes, under machine.runs. Running the same again only says where it is;
a stopped run goes on from its last checkpoint.
"""
"""What ``run.py --help`` says. Hydra's own way takes far longer: it lists every group for a text that is not shown."""


def options() -> dict[str, list[str]]:
    """Group -> the names that ``group=name`` takes, as the files under ``conf/`` are."""
    groups = sorted(folder for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
    return {
        group.name: sorted(file.relative_to(group).with_suffix("").as_posix() for file in group.rglob("*.yaml"))
        for group in groups
    }


def listing(width: int = 110) -> str:
    """The options of every group as text, a paragraph a group, with the group's default in brackets."""
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
