"""The common style of pictures: font sizes, a colour-blind safe palette, and one look per method."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import files
from experiments.figures.table import hardware

# Okabe and Ito's palette, darkest contrasts first.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
GRAY = "#555555"
WIDTH = 7.2  # inches, the text width of a page
LEGEND_LINE = 0.16  # inches, of each line of a legend but the first
LEGEND_WIDTH, LEGEND_HANDLE = (
    138,
    9,
)  # in letters: the width of the page, and that of a legend's line sample with its gap

RC = {
    "font.family": "DejaVu Sans",  # distributed with matplotlib, hence the same on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "figure.titlesize": 9.5,
    "pdf.fonttype": 42,  # TrueType outlines, as journals require
    "savefig.dpi": 150,
}


@dataclass(frozen=True)
class Look:
    """The colour and line style of a method, and its name in a legend."""

    label: str
    color: str
    line: str = "-"


METHODS = {
    "none": Look("no teleport", GRAY, "--"),
    "nullspace_paper": Look("null space, the paper's rule", PALETTE[1]),
    "nullspace": Look("null space, lands on the cap", PALETTE[0]),
    "gentle": Look("gentle null space", PALETTE[0]),
    "random_gentle": Look("random moves", PALETTE[5], ":"),
    "orbit": Look("group action", PALETTE[2]),
    "auto": Look("auto", PALETTE[1], "-."),
    "symmetry": Look("symmetry 2024", PALETTE[2]),
    "symmetry_zero": Look("symmetry 2024, T = 0 only", PALETTE[2], ":"),
    "symmetry_2022": Look("symmetry 2022", PALETTE[4]),
    "symmetry_corrected": Look("symmetry corrected", PALETTE[3]),
    "levelset": Look("level set", PALETTE[5]),
    "rescaling": Look("rescaling", "#8C6D31"),
    "change_of_basis_inter": Look("change of basis", PALETTE[0]),
    "pseudo_teleport": Look("pseudo-teleport", PALETTE[1]),
    "random": Look("random null-space move", "#000000", ":"),
}

DATA = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny-ImageNet",
    "smnist": "sequential MNIST",
    "ptb": "Penn Treebank",
    "random": "random data",
}

OPTIMIZERS = {"sgd": "SGD"}

MODELS = {
    "mlp": "MLP",
    "mlp_small": "small MLP",
    "cnn": "CNN",
    "resnet": "ResNet",
    "mlp500": "MLP 5x500",
    "vgg16": "VGG16",
    "resnet18": "ResNet18",
    "densenet121": "DenseNet121",
}

KEYS = {"optimizer.lr": "rate"}

VALUES = {
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "relu": "ReLU",
}


def looks(methods: list[str]) -> dict[str, Look]:
    """The look of each of ``methods``; methods without an entry in :data:`METHODS` take the unused colours in order."""
    taken = {METHODS[method].color for method in methods if method in METHODS}
    spare = cycle([color for color in PALETTE if color not in taken] or PALETTE)
    return {method: METHODS.get(method) or Look(method.replace("_", " "), next(spare)) for method in methods}


def label(names: dict[str, str], name: str) -> str:
    """The text for ``name`` in a picture."""
    return names.get(name, name.replace("_", " ").capitalize())


def setting(key: str, value: object) -> str:
    """The text for a configuration key and its value in a picture; a textual value is written without its key."""
    if isinstance(value, str):
        return label(VALUES, value)
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{KEYS.get(key, key.rpartition('.')[2].replace('_', ' '))} {number}"


def page(title: str, height: float) -> Figure:
    """An empty picture of the page's width and ``height`` inches; :func:`footnote` reserves the margins."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.text(0.5, 1 - 0.06 / height, title, ha="center", va="top", fontsize=RC["figure.titlesize"])
    return figure


def legend(figure: Figure, handles: list[Line2D]) -> None:
    """Draw the legend below the title, in as many lines as it needs; further lines increase the page's height."""
    lines = legend_lines([str(handle.get_label()) for handle in handles])
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * (lines - 1))
    figure.texts[0].set_y(1 - 0.06 / figure.get_figheight())  # the title
    top = 1 - 0.25 / figure.get_figheight()
    columns = math.ceil(len(handles) / lines)
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, top), ncols=columns, columnspacing=1.6)


def legend_lines(names: Sequence[str]) -> int:
    """The number of lines of a legend of these names, whose columns are filled from the top."""
    for lines in range(1, len(names)):
        columns = [names[start : start + lines] for start in range(0, len(names), lines)]
        if sum(max(map(len, column)) + LEGEND_HANDLE for column in columns) <= LEGEND_WIDTH:
            return lines
    return len(names)


def no_result(axes: Axes, rows: pd.DataFrame) -> None:
    """Write the reasons of ``rows`` without a result into a panel."""
    why = "\n".join(textwrap.fill(reason, 30) for reason in rows["reason"].unique() if reason)
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", fontsize=5.5)


def footnote(figure: Figure, table: pd.DataFrame, what: str) -> None:
    """Write below a picture its content (``what``), scale, hardware and the notes on its data.

    Must be called last: the panels get the space between the title, with its legend, and the footnote.
    """
    parts = [what, f"scale {table['scale'].iloc[0]}", *hardware(table)]
    if "data" in table:
        noted = table.loc[table["note"] != "", ["data", "note"]].drop_duplicates()
        parts += [f"{label(DATA, data)}: {note}" for data, note in noted.itertuples(index=False)]
    lines = textwrap.wrap("; ".join(parts), 170)
    height = figure.get_figheight()
    figure.text(0.5, 0.05 / height, "\n".join(lines), ha="center", va="bottom", fontsize=5.5, color=GRAY)
    more = sum(legend_lines([text.get_text() for text in each.get_texts()]) - 1 for each in figure.legends)
    above, below = (0.52 if figure.legends else 0.28) + LEGEND_LINE * more, 0.12 + 0.1 * len(lines)
    figure.get_layout_engine().set(rect=(0, below / height, 1, 1 - (above + below) / height))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.pdf`` and ``<name>.png`` atomically; the same picture gives the same bytes.

    Raises:
        UserError: they cannot be written.
    """
    without = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    paths = []
    for kind, metadata in without.items():
        image = io.BytesIO()
        with rc_context(RC):
            figure.savefig(image, format=kind, metadata=metadata)
        paths.append(folder / f"{name}.{kind}")
        files.write_bytes(paths[-1], image.getvalue())
    return paths
