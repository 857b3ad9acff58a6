"""The page of a picture: title and legend above its panels, the caption below; and its files."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from matplotlib import rc_context, rcParamsDefault
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments import files
from experiments.figures import fonts, style
from experiments.figures.table import hardware

WIDTH = 7.2  # inches, the text width of a page
RESOLUTION = 150  # pixels per inch
TITLE, LEGEND, LEGEND_LINE = 0.28, 0.24, 0.16  # inches: the title, a legend's first line, each further line
LEGEND_WIDTH, LEGEND_HANDLE = 138, 9  # letters: the width of the page, and of a legend's line sample with its gap
CAPTION, NOTES = (6.5, 134), (6.0, 145)  # font size, and letters per line
MARGIN = 0.06  # inches, above the title and below the caption
BELOW_PANELS = 0.1  # inches, between the panels and the caption

RC = {
    "font.family": "DejaVu Sans",
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
    "figure.dpi": RESOLUTION,
    "savefig.dpi": RESOLUTION,
    "pdf.fonttype": 42,  # TrueType outlines, as journals require
}


@contextmanager
def settings() -> Iterator[None]:
    """The settings and fonts of all pictures, whatever the user's own settings of matplotlib are."""
    fonts.use_bundled()
    own = {key: value for key, value in rcParamsDefault.items() if not key.startswith("backend")}
    with rc_context({**own, **RC}):
        yield


class Page(Figure):
    """A picture of the page's width.

    Title, legend and caption take the room that they need: the page grows, and the panels keep their size.

    Args:
        title: above all.
        panels: inches, the height of the panels.
        layout: of the panels, as of matplotlib's figure; ``None`` leaves axes where they are put, as fractions of the
            space for panels.
    """

    def __init__(self, title: str, panels: float, layout: str | None = "constrained") -> None:
        super().__init__(figsize=(WIDTH, panels), layout=layout)
        self.panels = panels
        self.title = self.text(0.5, 1, title, ha="center", va="top", fontsize=RC["figure.titlesize"])
        self.claim: list[Text] = []
        self.notes: list[Text] = []
        self.placed: dict[Axes, tuple[float, float, float, float]] = {}
        self.arrange()

    def write(self, paragraphs: Sequence[str], small: bool) -> list[Text]:
        """Paragraphs of a caption, to be placed by :meth:`arrange`."""
        size, letters = NOTES if small else CAPTION
        color = style.GRAY if small else "black"
        lines = ["\n".join(textwrap.wrap(paragraph, letters)) for paragraph in paragraphs if paragraph]
        return [self.text(0, 0, each, va="top", fontsize=size, color=color, linespacing=1.2) for each in lines]

    def arrange(self) -> None:
        """Set the height of the page, and the places of all that is on it."""
        above = TITLE
        if self.legends:
            names = [text.get_text() for text in self.legends[0].get_texts()]
            above += LEGEND + LEGEND_LINE * (legend_lines(names) - 1)
        caption = [*self.claim, *self.notes]
        heights = [(text.get_text().count("\n") + 1) * text.get_fontsize() * 1.22 / 72 + 0.03 for text in caption]
        below = MARGIN + (sum(heights) + BELOW_PANELS if heights else 0)
        height = above + self.panels + below
        self.set_figheight(height)
        self.title.set_y(1 - MARGIN / height)
        for legend in self.legends:
            legend.set_bbox_to_anchor((0.5, 1 - 0.25 / height))
        top = below - BELOW_PANELS
        for text, own in zip(caption, heights, strict=True):
            text.set_position((0.08 / WIDTH, top / height))
            top -= own
        bottom, share = below / height, self.panels / height
        if self.get_layout_engine() is not None:
            self.get_layout_engine().set(rect=(0, bottom, 1, share))
        for axes in self.axes if self.get_layout_engine() is None else []:
            x, y, w, h = self.placed.setdefault(axes, axes.get_position().bounds)
            axes.set_position((x, bottom + y * share, w, h * share))

    def freeze(self) -> None:
        """Lay the panels out, and put their edges on whole pixels.

        A layout depends on the last bits of logarithms and products, which differ between processors.
        """
        self.draw_without_rendering()
        self.set_layout_engine("none")
        pixels = [size * RESOLUTION for size in (WIDTH, self.get_figheight())] * 2
        for axes in self.axes:
            if axes.get_axes_locator() is None:
                found = zip(axes.get_position().extents, pixels, strict=True)
                edges = [round(edge * size) / size for edge, size in found]
                axes.set_position((edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]))


def start(title: str, panels: float) -> Page:
    """An empty picture whose panels have ``panels`` inches of height; :func:`footnote` ends it."""
    return Page(title, panels)


def legend(figure: Page, handles: Sequence[Artist]) -> None:
    """Draw the legend below the title, in as many lines as it needs."""
    names = [str(handle.get_label()) for handle in handles]
    columns = math.ceil(len(handles) / legend_lines(names))
    figure.legend(handles=list(handles), loc="upper center", ncols=columns, columnspacing=1.6)
    figure.arrange()


def legend_lines(names: Sequence[str]) -> int:
    """The number of lines of a legend of these names, whose columns are filled from the top."""
    for lines in range(1, len(names)):
        columns = [names[start : start + lines] for start in range(0, len(names), lines)]
        if sum(max(map(len, column)) + LEGEND_HANDLE for column in columns) <= LEGEND_WIDTH:
            return lines
    return len(names)


def no_result(axes: Axes, rows: pd.DataFrame) -> None:
    """Write the reasons of ``rows`` without a result into a panel, which has nothing else."""
    why = "\n".join(textwrap.fill(reason, 30) for reason in rows["reason"].unique() if reason)
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", fontsize=5.5)


def footnote(figure: Page, table: pd.DataFrame, what: str) -> None:
    """Write below a picture its content (``what``), scale, hardware and the notes on its data."""
    parts = [what, f"scale {table['scale'].iloc[0]}", *hardware(table)]
    if "data" in table:
        noted = table.loc[table["note"] != "", ["data", "note"]].drop_duplicates()
        parts += [f"{style.label(style.DATA, data)}: {note}" for data, note in noted.itertuples(index=False)]
    figure.notes = figure.write(["; ".join(parts)], small=True)
    figure.arrange()


def caption(figure: Page, paragraphs: Sequence[str]) -> None:
    """Write paragraphs above the footnote: what the picture is to show, and whether it does."""
    figure.claim = figure.write(paragraphs, small=False)
    figure.arrange()


def save(figure: Page, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.pdf`` and ``<name>.png`` atomically; the same picture gives the same bytes.

    Raises:
        UserError: they cannot be written.
    """
    without = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    paths = []
    with settings():
        figure.freeze()
        for kind, metadata in without.items():
            image = io.BytesIO()
            figure.savefig(image, format=kind, metadata=metadata)
            paths.append(folder / f"{name}.{kind}")
            files.write_bytes(paths[-1], image.getvalue())
    return paths
