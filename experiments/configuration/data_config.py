"""The keys of each kind of data set, typed. Part of ``config.py``; importing it is cheap: no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING, SI

Flag = bool | str
"""True or false. For ``bool`` alone OmegaConf would take any number; a text is refused in ``validate.py``."""


@dataclass
class Extent:
    """How much of a data set a scale uses; ``None`` is all of it."""

    epochs: int = MISSING
    train_samples: int | None = None
    test_samples: int | None = None
    max_steps: int | None = None  # ends a run before its epochs do; for data whose epochs are long
    eval_every: int | None = None  # steps between evaluations; None: once an epoch
    eval_samples: int | None = 10000  # training samples that the training loss is measured on; None: all
    teleport_batches: int = 8  # B


@dataclass
class DataConfig:
    """Keys that every data set has."""

    name: str = MISSING
    root: str = "${oc.env:TELEPORT_DATA,data}"  # machine-only
    extents: dict[str, Extent] = field(default_factory=dict)  # scale -> extent; never part of a run's hash
    train_samples: int | None = SI("${.extents.${scale}.train_samples}")  # None: all; else of one fixed shuffle
    test_samples: int | None = SI("${.extents.${scale}.test_samples}")
    batch_size: int = 32
    eval_every: int | None = SI("${.extents.${scale}.eval_every}")


@dataclass
class ImageData(DataConfig):
    """Images with class labels.

    ``crop`` pads by that many pixels and crops at random, ``flip`` mirrors at random.
    """

    image_size: int | None = None  # None: as stored
    crop: int = 0
    flip: Flag = False
    as_sequence: Flag = False  # rows of a one-channel image as a sequence (sequential MNIST)


@dataclass
class DigitsData(ImageData):
    """The digits of scikit-learn, which are ordered by writer."""

    split: str = "random"  # random | order; order holds out the last fifth, whose writers are not in the training split


@dataclass
class RandomData(DataConfig):
    """Seeded noise with seeded labels, for analyses that need no signal."""

    shape: list[int] = MISSING  # one sample: channels, height, width
    classes: int = 10
    data_seed: int = 0


@dataclass
class FunctionData(DataConfig):
    """A function of two variables, for the model ``point``."""

    start: list[float] = MISSING  # where the model starts


@dataclass
class SeriesData(DataConfig):
    """Windows of a multivariate series; the target is the value ``horizon`` steps after the window's end."""

    window: int = 168
    horizon: int = 24
    train_share: float = 0.8  # by time; the rest is the test split


@dataclass
class TextData(DataConfig):
    """Token sequences; the label is the input shifted by one."""

    lengths: dict[str, int] = field(default_factory=dict)  # scale -> length; never part of a run's hash
    length: int = 256
    vocabulary: int = 10000  # at most this many tokens; rarer ones are <unk>


KINDS: dict[str, type[DataConfig]] = {
    "digits": DigitsData,
    "function": FunctionData,
    "image": ImageData,
    "random": RandomData,
    "series": SeriesData,
    "text": TextData,
}
"""What a YAML file's ``/schema/data@_here_`` names -> the dataclass that checks it."""
