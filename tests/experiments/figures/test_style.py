"""The look of methods and names of settings."""

from __future__ import annotations

import pytest

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
