"""The page of settings: the files of ``conf/`` that runs are composed of, with their comments."""

from __future__ import annotations

from pathlib import Path

from experiments.report.documents import text_of
from experiments.report.markup import code, fenced

GROUPS = {
    "data": "Data sets: how much of each a scale uses, and batch sizes",
    "model": "Networks: their sizes, and the samples and warm-up of their teleports",
    "optimizer": "Optimizers",
    "rates": "Rates by data set and optimizer",
    "teleport": "Methods: schedule and settings of each",
    "scale": "Scales",
    "experiment": "Panels of the papers",
}
"""Folder of ``conf/`` -> what its files set; figures have pages of their own."""


FRONT = "---\nsearch: {boost: 0.5}\n---\n\n"
"""Files of settings have many words; in the search, figures and findings come first."""


def page(conf: Path) -> str:
    """``settings.md``.

    Raises:
        UserError: a file cannot be read.
    """
    parts = [
        FRONT + "# Settings",
        "A run is composed of one file of each group and of what its figure sets; any other value is the default in "
        f"{code('conf/config.yaml')}. Comments in the files say which values a source confirms. "
        f"The whole of a run: {code('python run.py --cfg job --resolve GROUP=NAME ...')}.",
        "## Defaults",
        *(collapsed(path, conf) for path in sorted(conf.glob("*.yaml"))),
    ]
    for group, title in GROUPS.items():
        parts += [f"## {title}", *(collapsed(path, conf) for path in sorted((conf / group).rglob("*.yaml")))]
    return "\n\n".join(parts) + "\n"


def collapsed(path: Path, conf: Path) -> str:
    """A file of ``conf`` that opens at a click.

    Raises:
        UserError: it cannot be read.
    """
    return opened_by_click(f"conf/{path.relative_to(conf).as_posix()}", text_of(path))


def opened_by_click(title: str, source: str) -> str:
    """A YAML text that opens at a click."""
    inside = "\n".join("    " + line for line in fenced(source, "yaml").splitlines())
    return f'??? note "{title}"\n\n{inside}'
