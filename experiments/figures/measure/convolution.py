"""A small convolution and the same as a matrix product, number by number."""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.figures.runs import FigureRun


def measure_convolution(
    run: FigureRun | None,
    *,
    channels: int = 2,
    size: int = 4,
    filters: int = 2,
    kernel: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """Arrays of a convolution of whole numbers, without padding, a row a number.

    | ``array``  | shape ``[plane, row, column]``     | what                                    |
    |------------|------------------------------------|-----------------------------------------|
    | ``image``  | ``[channels, size, size]``         | the input                               |
    | ``kernel`` | ``[filters * channels, k, k]``     | the filters, channel by channel         |
    | ``patches``| ``[1, channels k k, positions]``   | R: a column a patch                     |
    | ``weight`` | ``[1, filters, channels k k]``     | W: a row a filter                       |
    | ``product``| ``[1, filters, positions]``        | W R                                     |
    | ``output`` | ``[filters, height, width]``       | W R, each row folded back into a map    |
    """
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 4, (channels, size, size), generator=generator).float()
    weight = torch.randint(-1, 3, (filters, channels, kernel, kernel), generator=generator).float()
    patches = F.unfold(image[None], kernel)
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
    planes, rows, columns = torch.meshgrid(*(torch.arange(length) for length in array.shape), indexing="ij")
    places = {"plane": planes.flatten(), "row": rows.flatten(), "column": columns.flatten()}
    return pd.DataFrame({"array": name, **places, "value": array.flatten().int()})
