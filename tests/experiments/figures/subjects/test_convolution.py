"""A convolution as a matrix product, against torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from experiments.figures.subjects.convolution import draw_convolution, measure_convolution
from tests.experiments.figures.tables import tabled


@pytest.mark.parametrize("shape", [{}, {"channels": 3, "size": 6, "filters": 4, "kernel": 3, "seed": 1}])
def test_the_drawings_numbers_are_those_of_a_convolution(shape):
    table = measure_convolution(None, **shape)

    def array(name):
        rows = table[table["array"] == name]
        sizes = [rows[axis].max() + 1 for axis in ("plane", "row", "column")]
        return torch.tensor(rows["value"].to_numpy()).reshape(*sizes).double()

    image, output = array("image"), array("output")
    weight = array("kernel").unflatten(0, (len(output), len(image)))
    torch.testing.assert_close(functional.conv2d(image[None], weight)[0], output)
    torch.testing.assert_close(array("weight")[0] @ array("patches")[0], array("product")[0])
    torch.testing.assert_close(array("product")[0], output.flatten(1))


def test_the_convolution_shows_every_number_of_its_table():
    rows = measure_convolution(None, channels=3, size=5, filters=2, kernel=3)
    figure = draw_convolution(tabled(({}, rows)), "title")
    numbers = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in figure.axes[0].texts]
    assert sorted(int(n) for n in numbers if n.lstrip("-").isdigit()) == sorted(rows["value"])
