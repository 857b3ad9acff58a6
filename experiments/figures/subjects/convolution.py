"""A small convolution and the same operation as a matrix product, with one patch and one filter highlighted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, Rectangle

from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor


def measure_convolution(
    run: FigureRun | None,
    *,
    channels: int = 2,
    size: int = 4,
    filters: int = 2,
    kernel: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """The arrays of a convolution of integers, without padding, one row per number.

    | ``array``  | shape ``[plane, row, column]``     | content                                 |
    |------------|------------------------------------|-----------------------------------------|
    | ``image``  | ``[channels, size, size]``         | the input                               |
    | ``kernel`` | ``[filters * channels, k, k]``     | the filters, channel by channel         |
    | ``patches``| ``[1, channels k k, positions]``   | R: one column per patch                 |
    | ``weight`` | ``[1, filters, channels k k]``     | W: one row per filter                   |
    | ``product``| ``[1, filters, positions]``        | W R                                     |
    | ``output`` | ``[filters, height, width]``       | W R, each row folded back into a map    |
    """
    import torch
    from torch.nn.functional import unfold

    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 4, (channels, size, size), generator=generator).float()
    weight = torch.randint(-1, 3, (filters, channels, kernel, kernel), generator=generator).float()
    patches = unfold(image[None], kernel)
    product = weight.flatten(1) @ patches[0]
    side = size - kernel + 1
    arrays = {
        "image": image,
        "kernel": weight.flatten(0, 1),
        "patches": patches,
        "weight": weight.flatten(1)[None],
        "product": product[None],
        "output": product.reshape(filters, side, side),
    }
    return pd.concat([_rows(name, array) for name, array in arrays.items()], ignore_index=True)


def _rows(name: str, array: Tensor) -> pd.DataFrame:
    import torch

    planes, rows, columns = torch.meshgrid(*(torch.arange(length) for length in array.shape), indexing="ij")
    places = {"plane": planes.flatten(), "row": rows.flatten(), "column": columns.flatten()}
    return pd.DataFrame({"array": name, **places, "value": array.flatten().int()})


CHANNELS = (style.PALETTE[0], style.PALETTE[2], style.PALETTE[4], style.PALETTE[3])
FOLLOWED = style.PALETTE[1]  # the highlighted patch and filter, and their product
PLAIN = "#FFFFFF"
GAP = 0.5  # between planes; all lengths are in cells
BETWEEN = 1.9  # between the factors of a product
LABEL = 1.0  # above an array


@dataclass(frozen=True)
class Box:
    """The position of a group of planes: left and top edge, width and height."""

    left: float
    top: float
    width: float
    height: float

    @property
    def center(self) -> float:
        """The horizontal middle."""
        return self.left + self.width / 2

    @property
    def bottom(self) -> float:
        """The lower edge; heights grow downwards."""
        return self.top + self.height


def draw_convolution(table: pd.DataFrame, title: str) -> page.Page:
    """Above, filters * image = maps; below, the same numbers as W R.

    Args:
        table: rows of :func:`measure_convolution`, which give all numbers and shapes.
        title: of the whole picture.
    """
    arrays = {str(name): _array(rows) for name, rows in table.groupby("array")}
    boxes = _layout(arrays)
    width, height = boxes["product"].left + boxes["product"].width + 1.0, boxes["patches"].bottom + 2.6
    figure = page.Page(title, page.WIDTH * height / width, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()

    _convolution(axes, arrays, boxes)
    _product(axes, arrays, boxes)
    _ways(axes, boxes)
    _sum(axes, arrays, width / 2, boxes["patches"].bottom + 1.1)
    page.footnote(
        figure, table, "integers drawn at random, without padding; framed: one filter, one patch and their product"
    )
    return figure


def _array(rows: pd.DataFrame) -> np.ndarray:
    """The numbers of one array, ``[planes, rows, columns]``."""
    places = rows[["plane", "row", "column"]].to_numpy(int)
    array = np.zeros(places.max(axis=0) + 1, int)
    array[tuple(places.T)] = rows["value"].to_numpy(int)
    return array


def _layout(arrays: dict[str, np.ndarray]) -> dict[str, Box]:
    """Three columns, each with an array of the convolution above its matrix."""
    filters, channels = arrays["output"].shape[0], arrays["image"].shape[0]
    sizes = {name: _size(arrays[name], across=len(arrays[name])) for name in ("image", "output")}
    sizes["kernel"] = _size(arrays["kernel"], across=channels, down=filters)
    sizes |= {name: _size(arrays[name]) for name in ("weight", "patches", "product")}

    above = 0.4 + LABEL, max(sizes[name][1] for name in ("kernel", "image", "output"))
    below = above[0] + above[1] + 3.4 + LABEL, sizes["patches"][1]
    boxes, left = {}, 1.0
    for upper, lower in (("kernel", "weight"), ("image", "patches"), ("output", "product")):
        column = max(sizes[upper][0], sizes[lower][0])
        for name, (top, room) in ((upper, above), (lower, below)):
            width, height = sizes[name]
            boxes[name] = Box(left + (column - width) / 2, top + (room - height) / 2, width, height)
        left += column + BETWEEN
    return boxes


def _size(array: np.ndarray, across: int = 1, down: int = 1) -> tuple[float, float]:
    """Width and height of ``across x down`` planes with gaps between them."""
    _, rows, columns = array.shape
    return across * columns + (across - 1) * GAP, down * rows + (down - 1) * GAP


def _convolution(axes: Axes, arrays: dict[str, np.ndarray], boxes: dict[str, Box]) -> None:
    """The upper half; the middle patch and the first filter are highlighted."""
    kernel, image, output = arrays["kernel"], arrays["image"], arrays["output"]
    filters, channels, k = len(output), len(image), kernel.shape[1]
    row, column = output.shape[1] // 2, output.shape[2] // 2
    for plane, values in enumerate(kernel):
        number, channel = divmod(plane, channels)
        left, top = boxes["kernel"].left + channel * (k + GAP), boxes["kernel"].top + number * (k + GAP)
        _grid(axes, values, left, top, _tint(channel))
        if number == 0:
            _outline(axes, left, top, k, k)
    for channel, values in enumerate(image):
        left, top = boxes["image"].left + channel * (image.shape[2] + GAP), boxes["image"].top
        _grid(axes, values, left, top, _tint(channel))
        _outline(axes, left + column, top + row, k, k)
    for plane, values in enumerate(output):
        left, top = boxes["output"].left + plane * (output.shape[2] + GAP), boxes["output"].top
        _grid(axes, values, left, top, PLAIN)
        if plane == 0:
            _outline(axes, left + column, top + row, 1, 1)
    _label(axes, boxes["kernel"], f"{filters} filters of {channels} channels, {k} x {k}")
    _label(axes, boxes["image"], f"image of {channels} channels, {image.shape[1]} x {image.shape[2]}")
    _label(axes, boxes["output"], f"{filters} maps, {output.shape[1]} x {output.shape[2]}")
    middle = boxes["image"].top + boxes["image"].height / 2
    _between(axes, boxes["kernel"], boxes["image"], middle, r"$\ast$")
    _between(axes, boxes["image"], boxes["output"], middle, "=")


def _product(axes: Axes, arrays: dict[str, np.ndarray], boxes: dict[str, Box]) -> None:
    """The lower half: the columns of W and the rows of R have the tint of their channel."""
    weight, patches, product = arrays["weight"][0], arrays["patches"][0], arrays["product"][0]
    area = len(patches) // len(arrays["image"])
    position = _followed(arrays)
    for index in range(len(patches)):
        tint = _tint(index // area)
        _grid(axes, weight[:, index : index + 1], boxes["weight"].left + index, boxes["weight"].top, tint)
        _grid(axes, patches[index : index + 1], boxes["patches"].left, boxes["patches"].top + index, tint)
    _grid(axes, product, boxes["product"].left, boxes["product"].top, PLAIN)
    _outline(axes, boxes["weight"].left, boxes["weight"].top, weight.shape[1], 1)
    _outline(axes, boxes["patches"].left + position, boxes["patches"].top, 1, len(patches))
    _outline(axes, boxes["product"].left + position, boxes["product"].top, 1, 1)
    for name, text in (
        ("weight", r"$W$  [filters, channels $k^2$]"),
        ("patches", r"$R$  [channels $k^2$, positions]"),
        ("product", r"$W R$  [filters, positions]"),
    ):
        _, rows, columns = arrays[name].shape
        _label(axes, boxes[name], f"{text} = [{rows}, {columns}]")
    middle = boxes["patches"].top + boxes["patches"].height / 2
    _between(axes, boxes["weight"], boxes["patches"], middle, r"$\cdot$")
    _between(axes, boxes["patches"], boxes["product"], middle, "=")


def _followed(arrays: dict[str, np.ndarray]) -> int:
    """The column of R that holds the middle patch."""
    _, rows, columns = arrays["output"].shape
    return (rows // 2) * columns + columns // 2


def _ways(axes: Axes, boxes: dict[str, Box]) -> None:
    """Arrows between each array and its matrix below, labelled with the operation."""
    for upper, lower, text, up in (
        ("kernel", "weight", "a filter, flattened,\nis a row of W", False),
        ("image", "patches", "a patch, unfolded,\nis a column of R", False),
        ("output", "product", "a row of the product,\nfolded back, is a map", True),
    ):
        start, end = boxes[upper].bottom + 0.45, boxes[lower].top - LABEL - 0.35
        x = boxes[upper].center
        ends = ((x, end), (x, start)) if up else ((x, start), (x, end))
        axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=9, color=style.GRAY, linewidth=0.9))
        middle = (boxes["image"].bottom + boxes["patches"].top - LABEL) / 2
        axes.text(x + 0.5, middle, text, va="center", fontsize=6.5, color=style.GRAY)


def _sum(axes: Axes, arrays: dict[str, np.ndarray], x: float, y: float) -> None:
    """The highlighted output as a sum of products, and the consequence for a teleport."""
    row, column = arrays["weight"][0, 0], arrays["patches"][0, :, _followed(arrays)]
    terms = " + ".join(rf"({w}) \cdot {r}" if w < 0 else rf"{w} \cdot {r}" for w, r in zip(row, column, strict=True))
    axes.text(x, y, f"${terms} = {int(row @ column)}$", ha="center", va="center", fontsize=7.5, color=FOLLOWED)
    rule = r"A change of $W$ whose rows are orthogonal to every column of $R$ leaves the convolution's output as it is."
    axes.text(x, y + 1.0, rule, ha="center", va="center", fontsize=7.5)


def _grid(axes: Axes, values: np.ndarray, left: float, top: float, face: str | tuple[float, ...]) -> None:
    """Numbers ``[rows, columns]`` in square cells."""
    for (row, column), value in np.ndenumerate(values):
        cell = Rectangle((left + column, top + row), 1, 1, facecolor=face, edgecolor="#9A9A9A", linewidth=0.5)
        axes.add_patch(cell)
        text = str(value).replace("-", "\N{MINUS SIGN}")
        axes.text(left + column + 0.5, top + row + 0.53, text, ha="center", va="center", fontsize=6.5)


def _outline(axes: Axes, left: float, top: float, width: float, height: float) -> None:
    frame = Rectangle((left, top), width, height, fill=False, edgecolor=FOLLOWED, linewidth=1.8, zorder=3)
    axes.add_patch(frame)


def _label(axes: Axes, box: Box, text: str) -> None:
    axes.text(box.center, box.top - LABEL / 2, text, ha="center", va="center", fontsize=7)


def _between(axes: Axes, left: Box, right: Box, height: float, sign: str) -> None:
    x = (left.left + left.width + right.left) / 2
    axes.text(x, height, sign, ha="center", va="center", fontsize=13)


def _tint(channel: int) -> tuple[float, ...]:
    """A pale shade of the channel's colour."""
    return tuple(1 - 0.25 * (1 - part) for part in to_rgb(CHANNELS[channel % len(CHANNELS)]))
