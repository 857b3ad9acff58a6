"""What there is to report of each figure: its configuration, and each folder of results that was made from it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from PIL import Image

from experiments.errors import UserError
from experiments.figures import provenance
from experiments.figures import table as tables

PAPERS = {
    "nullspace": "Null-space teleports (Wu et al. 2025)",
    "neural": "Change of basis (Armenta et al. 2023)",
    "symmetry": "Symmetry teleports (Zhao et al. 2022)",
}
"""Folder of ``conf/figure`` -> what its figures are about, in the order of the report."""

REDRAW = "make figures draws it again from its table"


@dataclass
class Results:
    """One folder of results: a figure at one scale, with one set of overrides."""

    folder: Path
    origin: dict[str, Any]  # provenance.json
    table: pd.DataFrame
    csv: Path
    picture: Path
    size: tuple[int, int]  # of the picture, in pixels
    checked: bool  # whether the table has the checksum that was recorded with it


@dataclass
class Figure:
    """A figure of ``conf/figure``. ``results`` has the committed folder first; it is empty if nothing was measured."""

    name: str  # <paper>/<name>
    title: str
    claim: str
    source: str  # the text of its file
    results: list[Results] = field(default_factory=list)

    @property
    def paper(self) -> str:
        """The folder that it is in."""
        return self.name.partition("/")[0]

    @property
    def label(self) -> str:
        """``Figure 8`` for ``fig8``, ``Figure 7, rates`` for ``fig7_rates``; any other name in words."""
        short = self.name.rpartition("/")[2]
        numbered = re.fullmatch(r"(fig|table)(\d+[a-z]?)(?:_(.+))?", short)
        if numbered is None:
            words = short.replace("_", " ")
            return words[0].upper() + words[1:]
        kind, of_paper, rest = numbered.groups()
        return f"{'Figure' if kind == 'fig' else 'Table'} {of_paper}" + (f", {rest.replace('_', ' ')}" if rest else "")


def read(conf: Path, results: Path) -> list[Figure]:
    """Every figure of ``conf`` with its folders under ``results``, by paper and number.

    Raises:
        UserError: a file of a figure is missing or damaged, or a folder belongs to no figure.
    """
    root = conf / "figure"
    names = [path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")]
    figures = {name: _configured(root, name) for name in sorted(names, key=_order)}
    for path in sorted(results.rglob(provenance.FILE)):
        origin = provenance.read(path)
        if origin["figure"] not in figures:
            raise UserError(
                f"'{path}' is of the figure '{origin['figure']}', which is not in '{root}'; remove the folder, or add "
                "the figure's file"
            )
        figures[origin["figure"]].results.append(_results(path.parent, origin))
    for figure in figures.values():
        figure.results.sort(key=lambda one: (one.folder != results / figure.name, one.folder.name))
    return list(figures.values())


def papers(figures: list[Figure]) -> dict[str, list[Figure]]:
    """The figures of each paper, in the order of ``PAPERS``; other folders last."""
    known = {paper: [figure for figure in figures if figure.paper == paper] for paper in PAPERS}
    for figure in figures:
        if figure.paper not in PAPERS:
            known.setdefault(figure.paper, []).append(figure)
    return {paper: found for paper, found in known.items() if found}


def _order(name: str) -> list[tuple[str, int]]:
    """``fig6a`` before ``fig11``; numbered figures before others."""
    paper, _, short = name.rpartition("/")
    parts = [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", short)]
    return [(paper, 0), ("", 0 if re.match(r"fig\d", short) else 1), *parts]


def _configured(root: Path, name: str) -> Figure:
    """A figure as its file describes it; keys that it lacks are those of the figure that its defaults name.

    Raises:
        UserError: the file cannot be read, or lacks its title or claim.
    """
    path = root / f"{name}.yaml"
    try:
        source = path.read_text()
        content = yaml.safe_load(source)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"the figure '{path}' cannot be read as YAML; get the file back from git") from error
    content = content if isinstance(content, dict) else {}
    base = [
        entry for entry in content.get("defaults") or [] if isinstance(entry, str) and (root / f"{entry}.yaml").exists()
    ]
    inherited = _configured(root, base[0]) if base and base[0] != name else None
    title = content.get("title") or (inherited.title if inherited else None)
    claim = content.get("claim") or (inherited.claim if inherited else None)
    if not isinstance(title, str) or not isinstance(claim, str):
        raise UserError(
            f"the figure '{path}' lacks its title or its claim; write what is above it and what the paper says"
        )
    return Figure(name, title, claim, source)


def _results(folder: Path, origin: dict[str, Any]) -> Results:
    """A folder of results, each file of it checked.

    Raises:
        UserError: the table or the picture is missing or damaged.
    """
    short = origin["figure"].rpartition("/")[2]
    csv, picture = folder / f"{short}.csv", folder / f"{short}.png"
    content = tables.read_bytes(csv)
    checked = provenance.check_table(csv, content, origin)
    rows = tables.decode(content, str(csv))
    try:
        with Image.open(picture) as image:
            image.load()
            size = image.size
    except FileNotFoundError as error:
        raise UserError(f"the picture '{picture}' is missing; {REDRAW}") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
        raise UserError(f"the picture '{picture}' is damaged; {REDRAW}") from error
    return Results(folder, origin, rows, csv, picture, size, checked)
