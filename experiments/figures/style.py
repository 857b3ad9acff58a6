"""The common style of pictures: a colour-blind safe palette, one look per method, and the names of things."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import cycle

# Okabe and Ito's palette, darkest contrasts first.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
GRAY = "#555555"
PLAIN = "#8A8A8A"  # of training without teleports: apart from the black lines of random moves


@dataclass(frozen=True)
class Look:
    """The colour and line style of a method, and its name in a legend."""

    label: str
    color: str
    line: str = "-"


METHODS = {
    "none": Look("no teleport", PLAIN, "--"),
    "nullspace_paper": Look("null space, the paper's rule", PALETTE[1]),
    "nullspace": Look("null space, lands on the cap", PALETTE[0]),
    "gentle": Look("gentle null space", PALETTE[0]),
    "least_drift": Look("null space of least drift", PALETTE[2]),
    "random_gentle": Look("random moves", PALETTE[5], ":"),
    "random_matched": Look("random, equal length", "#000000", "-."),
    "single": Look("one gentle null space", PALETTE[1], "-."),
    "orbit": Look("group action", PALETTE[2]),
    "auto": Look("auto", PALETTE[1], "-."),
    "symmetry": Look("symmetry 2024", PALETTE[2]),
    "symmetry_zero": Look("symmetry 2024, T = 0 only", PALETTE[2], ":"),
    "symmetry_2022": Look("symmetry 2022", PALETTE[4]),
    "symmetry_corrected": Look("symmetry corrected", PALETTE[3]),
    "levelset": Look("level set", PALETTE[5]),
    "rescaling": Look("rescaling", "#8C6D31"),
    "balance": Look("balance", PALETTE[3], "-."),
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
    "los_speed": "Los Angeles speed",
    "etth1": "ETTh1",
    "random": "random data",
}

OPTIMIZERS = {"sgd": "SGD"}

MODELS = {
    "mlp": "MLP",
    "mlp_small": "small MLP",
    "cnn": "CNN",
    "resnet": "ResNet",
    "transformer": "transformer",
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
    "tuned": "tuned rate",
}


def looks(methods: list[str]) -> dict[str, Look]:
    """The look of each of ``methods``; methods without an entry in :data:`METHODS` take the unused colours in order."""
    taken = {METHODS[method].color for method in methods if method in METHODS}
    spare = cycle([color for color in PALETTE if color not in taken] or PALETTE)
    return {method: METHODS.get(method) or Look(method.replace("_", " "), next(spare)) for method in methods}


def label(names: dict[str, str], name: str) -> str:
    """The text for ``name`` in a picture."""
    return names.get(name, name.replace("_", " ").capitalize())


def sizes(value: object) -> str:
    """Widths or channels, ``[8, 16, 32]``, as one writes them: ``8-16-32``; empty if there are none."""
    return "-".join(re.findall(r"\d+", value)) if isinstance(value, str) else ""


def setting(key: str, value: object) -> str:
    """The text for a configuration key and its value in a picture; a textual value is written without its key."""
    if isinstance(value, str):
        return label(VALUES, value)
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{KEYS.get(key, key.rpartition('.')[2].replace('_', ' '))} {number}"
