"""The look of methods and names of settings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from experiments.figures import style


def test_methods_that_are_drawn_together_look_different():
    apart = ("auto", "gentle", "least_drift", "random_gentle", "single")  # in a figure of their own
    apart += ("orbit", "change_of_basis_inter", "pseudo_teleport")  # in other figures: points, and another paper's
    together = [look for name, look in style.METHODS.items() if name not in apart]
    assert len({(look.color, look.line) for look in together}) == len(together)


def test_each_method_looks_like_itself_whatever_else_is_there():
    looks = style.looks(["one_of_mine", "none", "nullspace", "another"])
    assert looks["none"] == style.METHODS["none"]
    assert len({look.color for look in looks.values()}) == 4


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("optimizer.lr", 0.001, "rate 0.001"),
        ("teleport.range", 0.9, "range 0.9"),
        ("training.batch_size", 256, "batch size 256"),
        ("model.init", "xavier", "Xavier"),
        ("model.activation", "elu", "ELU"),
    ],
)
def test_settings_are_named_as_one_says_them(key, value, name):
    assert style.setting(key, value) == name


@pytest.mark.parametrize(("value", "words"), [("[8, 16, 32]", "8-16-32"), ("[256]", "256"), ("", ""), (math.nan, "")])
def test_sizes_are_written_as_one_says_them(value, words):
    assert style.sizes(value) == words


def test_training_without_teleports_is_apart_from_black_lines():
    """By WCAG's ratio of luminances, which is to be 3 for shapes beside each other, and on the white ground."""
    light = {"ground": 1.0}
    for name in ("none", "random_matched"):
        channels = np.array(to_rgb(style.METHODS[name].color))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        light[name] = float(linear @ [0.2126, 0.7152, 0.0722])
    assert (light["none"] + 0.05) / (light["random_matched"] + 0.05) > 3
    assert (light["ground"] + 0.05) / (light["none"] + 0.05) > 3
