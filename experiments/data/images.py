"""Image classification tasks: uint8 images on the device, augmented, resized and normalised per batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.configuration.data_config import ImageData
from experiments.data.arrays import Arrays, read_images
from experiments.data.fetch import ensure
from experiments.data.published import IMAGES, SEQUENCES, ImageSet, stored_files
from experiments.data.subset import subset
from experiments.errors import UserError
from experiments.tasks import Spec, Task


class ImageSplit:
    """Images uint8 [n, c, h, w] and labels int64 [n] on one device.

    A batch is cropped and flipped (only with a generator), resized to ``size`` and normalised: ``(pixel - mean) / std``
    per channel, ``mean`` and ``std`` [c] in pixel units. With ``as_sequence`` the single channel is dropped, and an
    image is a sequence of its rows.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: Tensor,
        std: Tensor,
        *,
        size: int | None = None,
        crop: int = 0,
        flip: bool = False,
        as_sequence: bool = False,
    ) -> None:
        self.images, self.labels = images, labels
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.size, self.crop, self.flip, self.as_sequence = size, crop, flip, as_sequence

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def augments(self) -> bool:
        """Whether images are cropped or flipped at random."""
        return self.crop > 0 or self.flip

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Inputs float [b, c, h, w] (as a sequence [b, h, w]) and labels [b] of the images ``index``."""
        x = self.images[index]
        if generator is not None and self.crop:
            x = random_crop(x, self.crop, generator)
        if generator is not None and self.flip:
            x = random_flip(x, generator)
        x = x.float()
        if self.size is not None and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        x = x.sub_(self.mean).div_(self.std)  # in place: x is a copy
        return (x.squeeze(1) if self.as_sequence else x), self.labels[index]


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad images [b, c, h, w] with ``padding`` black pixels on each side and crop each at a random position."""
    b, _, h, w = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, b), generator=generator).to(images.device)
    rows = top[:, None] + torch.arange(h, device=images.device)  # [b, h]
    columns = left[:, None] + torch.arange(w, device=images.device)  # [b, w]
    image = torch.arange(b, device=images.device)
    cut = padded.permute(0, 2, 3, 1)[image[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each of the images [b, c, h, w] left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)


def pixel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by channel of uint8 images [n, c, h, w], each float32 [c].

    They are computed exactly from the counts of the 256 values, without a float copy of the images. The standard
    deviation of a constant channel is set to 1, so that the channel becomes zero.
    """
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    share = counts.double() / counts.sum(1, keepdim=True)  # [c, 256]
    values = torch.arange(256, dtype=torch.float64)
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt()
    std[(counts > 0).sum(1) == 1] = 1.0
    return mean.float(), std.float()


def image_task(config: ImageData, device: torch.device) -> Task:
    """The task of a published image set, downloaded if it is missing.

    Raises:
        UserError: the set cannot be downloaded, its file is invalid, or a key does not fit it.
    """
    name = SEQUENCES.get(config.name, config.name)
    root = Path(config.root)
    ensure(name, root)
    arrays = read_images(stored_files(name, root)[0], IMAGES[name])
    return task_of_arrays(config, arrays, device, fragment_note(arrays, IMAGES[name]))


def task_of_arrays(config: ImageData, arrays: Arrays, device: torch.device, note: str = "") -> Task:
    """The task of images in memory: ``x_*`` uint8 [n, h, w, c], ``y_*`` int64 [n].

    Raises:
        UserError: a key of the configuration does not fit the images.
    """
    height, width, channels = arrays["x_train"].shape[1:]
    _check_keys(config, height, width, channels)
    chosen = {
        split: subset(len(arrays[f"y_{split}"]), getattr(config, f"{split}_samples"), f"data.{split}_samples").numpy()
        for split in ("train", "test")
    }
    images = {
        split: torch.from_numpy(np.ascontiguousarray(arrays[f"x_{split}"][index].transpose(0, 3, 1, 2)))
        for split, index in chosen.items()
    }
    mean, std = (statistic.to(device) for statistic in pixel_statistics(images["train"]))

    def split_of(split: str) -> ImageSplit:
        return ImageSplit(
            images[split].to(device),
            torch.from_numpy(arrays[f"y_{split}"][chosen[split]]).to(device),
            mean,
            std,
            size=config.image_size,
            crop=config.crop,
            flip=config.flip,
            as_sequence=config.as_sequence,
        )

    height, width = (config.image_size, config.image_size) if config.image_size else (height, width)
    shape = (height, width) if config.as_sequence else (channels, height, width)
    return Task(
        name=config.name,
        spec=Spec("sequence" if config.as_sequence else "image", shape, _classes(arrays)),
        train=split_of("train"),
        test=split_of("test"),
        loss=F.cross_entropy,
        metric="accuracy",
        note=note,
    )


def fragment_note(arrays: Arrays, published: ImageSet) -> str:
    """The parts of the published set that are missing, as a note; empty if it is complete."""
    parts = [
        (_classes(arrays), published.classes, "classes"),
        (len(arrays["y_train"]), published.train, "training images"),
        (len(arrays["y_test"]), published.test, "test images"),
    ]
    short = [f"{here} of {there} {what}" for here, there, what in parts if here != there]
    return f"a part of the published set: {', '.join(short)}" if short else ""


def _classes(arrays: Arrays) -> int:
    return int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1


def _check_keys(config: ImageData, height: int, width: int, channels: int) -> None:
    if not 0 <= config.crop < min(height, width):
        raise UserError(
            f"data.crop is {config.crop}, expected a number of pixels from 0 to below the size of the images, "
            f"{height}x{width}"
        )
    if config.image_size is not None and config.image_size < 1:
        raise UserError(f"data.image_size is {config.image_size}, expected a number of pixels from 1 up, or null")
    if config.as_sequence and channels != 1:
        raise UserError(
            f"data.as_sequence reads the rows of one-channel images, but {config.name} has {channels} channels; "
            "data=smnist is a set that fits"
        )
