"""Small archives in the formats of the published ones, and what they hold."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

Arrays = dict[str, np.ndarray]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def noise(seed: int, train: int, test: int, shape: tuple[int, int, int], classes: int) -> Arrays:
    """Random images and labels in the stored form."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, n in (("train", train), ("test", test)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (n, *shape), np.uint8)
        arrays[f"y_{split}"] = rng.integers(0, classes, n)
    return arrays


def write_mnist(folder: Path, arrays: Arrays) -> list[tuple[str, str]]:
    """The four idx files of MNIST, gzipped; their names and md5 sums."""
    files = []
    for split, stem in (("train", "train"), ("test", "t10k")):
        for kind, values in (("images-idx3", arrays[f"x_{split}"][..., 0]), ("labels-idx1", arrays[f"y_{split}"])):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            path = folder / f"{stem}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))
            files.append((path.name, md5(path)))
    return files


def write_cifar10(folder: Path, arrays: Arrays) -> dict[str, str]:
    """The tar of CIFAR-10 with one training batch; the md5 sums of it and of its members."""
    members = {"batches.meta": pickle.dumps({"label_names": [str(i) for i in range(10)]})}
    for name, split in (("data_batch_1", "train"), ("test_batch", "test")):
        rows = arrays[f"x_{split}"].transpose(0, 3, 1, 2).reshape(-1, 3072)
        members[name] = pickle.dumps({"data": rows, "labels": arrays[f"y_{split}"].tolist()})
    path = folder / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    sums = {name: hashlib.md5(content).hexdigest() for name, content in members.items()}
    return {**sums, "archive": md5(path)}


def write_tiny_imagenet(path: Path, extra: dict[str, bytes] | None = None, side: int = 64) -> Arrays:
    """A zip of three classes in the layout of tiny-imagenet-200.zip; what a decoder sees in it.

    ``wnids.txt`` is not sorted, one image is grey, and unlabelled test images are there to be left out.
    """
    rng = np.random.default_rng(0)
    wnids = ["n03", "n01", "n02"]
    root = "tiny-imagenet-200/"
    found: dict[str, list] = {"x_train": [], "y_train": [], "x_test": [], "y_test": []}

    def jpeg(grey: bool = False) -> bytes:
        pixels = rng.integers(0, 256, (side, side) if grey else (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(buffer := io.BytesIO(), "JPEG")
        return buffer.getvalue()

    def note(split: str, content: bytes, wnid: str) -> None:
        found[f"x_{split}"].append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
        found[f"y_{split}"].append(wnids.index(wnid))

    with zipfile.ZipFile(path, "w") as file:
        file.writestr(root + "wnids.txt", "\n".join(wnids) + "\n")
        for wnid in sorted(wnids):
            for i in range(2):
                content = jpeg(grey=wnid == "n02" and i == 0)
                file.writestr(f"{root}train/{wnid}/images/{wnid}_{i}.JPEG", content)
                note("train", content, wnid)
        lines = []
        for i, wnid in enumerate(["n02", "n03"]):
            content = jpeg()
            file.writestr(f"{root}val/images/val_{i}.JPEG", content)
            note("test", content, wnid)
            lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t62\n")
        file.writestr(root + "val/val_annotations.txt", "".join(lines))
        file.writestr(root + "test/images/test_0.JPEG", jpeg())
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return {key: np.array(values, np.uint8 if key[0] == "x" else np.int64) for key, values in found.items()}
