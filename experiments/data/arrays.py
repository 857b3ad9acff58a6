"""Image sets as plain array files: checking, reading and writing."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from experiments.data.published import ImageSet
from experiments.errors import UserError

Arrays = dict[str, np.ndarray]
KEYS = ("x_train", "y_train", "x_test", "y_test")
NOT_WHOLE = (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error)
"""The exceptions that numpy raises for a file that is truncated, damaged or of another format."""


def check_images(arrays: Arrays, published: ImageSet, where: str) -> None:
    """Check ``x_*`` uint8 [n, height, width, channels] and ``y_*`` int64 [n] against the published set.

    Fewer images and classes than published are accepted as a fragment.

    Raises:
        UserError: a key is missing, or a dtype, shape, length or label is wrong; the message names ``where``.
    """
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; an image set has the arrays {', '.join(KEYS)}")
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != published.shape:
            raise UserError(
                f"x_{split} of {where} is {x.dtype} of shape {list(x.shape)}, expected uint8 of shape "
                f"[n, {', '.join(map(str, published.shape))}]"
            )
        if y.dtype != np.int64 or y.ndim != 1 or len(y) != len(x):
            raise UserError(
                f"y_{split} of {where} is {y.dtype} of shape {list(y.shape)}, expected int64 of shape [{len(x)}], "
                "one label per image"
            )
        if len(x) == 0:
            raise UserError(f"x_{split} of {where} is empty; an image set has at least one image per split")
        if y.min() < 0 or y.max() >= published.classes:
            raise UserError(
                f"y_{split} of {where} has labels from {y.min()} to {y.max()}, expected 0 to {published.classes - 1}"
            )


def read_images(path: Path, published: ImageSet) -> Arrays:
    """Read and check an image set's npz file.

    Raises:
        UserError: the file is not a readable npz file, or fails ``check_images``.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS if key in file}
    except NOT_WHOLE as error:
        raise UserError(
            f"{path} is not a whole npz file ({type(error).__name__}); delete it, and it is fetched again on next use"
        ) from error
    check_images(arrays, published, str(path))
    return arrays


def write_images(path: Path, arrays: Arrays) -> None:
    """Write an image set uncompressed, which is the fastest to read."""
    np.savez(path, allow_pickle=False, **arrays)
