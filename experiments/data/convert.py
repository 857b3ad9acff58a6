"""Conversion of published image archives to arrays."""

from __future__ import annotations

import contextlib
import io
import stat
import sys
import zipfile
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from urllib.error import URLError

import numpy as np
from tqdm import tqdm

from experiments.data.arrays import Arrays
from experiments.data.download import Unreachable, download
from experiments.data.published import TINY_IMAGENET
from experiments.errors import UserError

TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def published_images(name: str, folder: Path) -> Arrays:
    """Download the published image set ``name`` into the scratch ``folder`` and return its arrays.

    Raises:
        Unreachable: it could not be downloaded.
        UserError: the content is not the published one.
    """
    if name in TORCHVISION:
        return _from_torchvision(TORCHVISION[name], folder)
    return tiny_imagenet(download(TINY_IMAGENET, folder))


def _from_torchvision(kind: str, folder: Path) -> Arrays:
    """A set by torchvision's loader, which has its mirrors and md5 sums."""
    from experiments.data.compat import torchvision

    loader = getattr(torchvision().datasets, kind)
    arrays: Arrays = {}
    for split in ("train", "test"):
        try:
            with contextlib.redirect_stdout(sys.stderr):
                data = loader(folder, train=split == "train", download=True)
        except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
            raise Unreachable(" ".join(str(error).split())) from error
        except RuntimeError as error:  # torchvision: all mirrors failed, or the md5 sum is wrong
            if "corrupted" in str(error):
                raise UserError(
                    f"the published {kind} did not come as torchvision's md5 sums want it: it is truncated or was "
                    "changed, and was not kept; try again"
                ) from error
            raise Unreachable("none of its mirrors answers") from error
        x = np.asarray(data.data, dtype=np.uint8)  # [n, h, w] or [n, h, w, c]
        arrays[f"x_{split}"] = x[..., None] if x.ndim == 3 else x
        arrays[f"y_{split}"] = np.asarray(data.targets, dtype=np.int64)
    return arrays


def tiny_imagenet(archive: Path) -> Arrays:
    """Arrays of ``tiny-imagenet-200.zip``: its training images, and its labelled validation images as the test split.

    Labels are numbered in the order of ``wnids.txt``, images are in the order of their names. Members are read from the
    archive without unpacking to disk.

    Raises:
        UserError: the archive is damaged, lacks a member, or has a member whose path leaves the archive.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            refuse_unsafe_members(file)
            return _read_tiny_imagenet(file)
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError, OSError) as error:
        raise UserError(f"{archive.name} is not a whole Tiny-ImageNet archive: {error}") from error


def refuse_unsafe_members(file: zipfile.ZipFile) -> None:
    """Raise a ``UserError`` if the path of a member is absolute or leaves the archive, or if a member is a link."""
    for member in file.infolist():
        path = PureWindowsPath(member.filename)  # parses both kinds of slash, and drives
        link = stat.S_ISLNK(member.external_attr >> 16)
        if path.drive or path.root or ".." in path.parts or link:
            kind = "is a link" if link else "leads out of the archive"
            raise UserError(f"{Path(file.filename or '').name} is refused: its member '{member.filename}' {kind}")


def _read_tiny_imagenet(file: zipfile.ZipFile) -> Arrays:
    from PIL import Image

    names = file.namelist()
    root = next(name for name in names if name.endswith("wnids.txt")).removesuffix("wnids.txt")
    label_of = {wnid: label for label, wnid in enumerate(file.read(f"{root}wnids.txt").decode().split())}
    annotations = file.read(f"{root}val/val_annotations.txt").decode().splitlines()
    wnid_of = dict(line.split("\t")[:2] for line in annotations if line)
    images = sorted(name for name in names if name.upper().endswith(".JPEG"))
    members = {
        "train": [(name, label_of[name.split("/")[-3]]) for name in images if name.startswith(f"{root}train/")],
        "test": [(name, label_of[wnid_of[name.split("/")[-1]]]) for name in images if name.startswith(f"{root}val/")],
    }
    arrays: Arrays = {}
    for split, pairs in members.items():
        pixels = np.empty((len(pairs), 64, 64, 3), np.uint8)
        for i, (name, _) in enumerate(tqdm(pairs, desc=f"tiny_imagenet {split}", unit="image")):
            # Some images are grey. An image of another size does not fit and raises ValueError.
            pixels[i] = np.asarray(Image.open(io.BytesIO(file.read(name))).convert("RGB"))
        arrays[f"x_{split}"] = pixels
        arrays[f"y_{split}"] = np.array([label for _, label in pairs], np.int64)
    return arrays
