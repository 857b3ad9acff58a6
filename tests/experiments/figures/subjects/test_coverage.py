"""The channels of torchvision's networks that are scaled, and their outputs."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.figures.subjects.coverage import built, draw_coverage, measure_coverage
from experiments.figures.unchanged_outputs import FORMS
from tests.experiments.figures.tables import said, tabled


def test_networks_of_torchvision_are_covered_and_keep_their_outputs():
    table = measure_coverage(None, names=["mobilenet_v3_small", "squeezenet1_1", "resnet19"], side=64)
    *rows, unknown = table.to_dict("records")
    assert [(row["arch"], row["form"]) for row in rows] == [
        (arch, form) for arch in ("mobilenet_v3_small", "squeezenet1_1") for form in FORMS
    ]
    for row in rows:
        assert row["channels"] == row["free"] + row["shared"] + row["pinned"]
        assert row["free"] + row["shared"] > 0
        assert row["moved"] > 0.01
        assert row["difference"] < 1e-4
        assert 0 < row["rounding"] < 1e-4
    assert unknown["reason"].startswith("unknown model.arch 'resnet19'")
    figure = draw_coverage(tabled(({}, table)), "title")
    assert "unknown model.arch" in said(figure)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(table["arch"].unique())


@pytest.mark.parametrize(("names", "reason"), [([], "lists none"), (["resnet19"], r"unknown model\.arch 'resnet19'")])
def test_no_network_at_all_is_a_sentence(names, reason):
    with pytest.raises(UserError, match=f"no network can be teleported, the first because: .*{reason}"):
        measure_coverage(None, names=names)


def test_an_architecture_of_fixed_size_gets_larger_images():
    assert [built(name, 64)[1] for name in ("shufflenet_v2_x0_5", "inception_v3")] == [64, 224]


def test_a_network_without_a_free_channel_is_called_not_covered():
    row = {"arch": "a", "form": "in place", "channels": 4, "free": 0, "shared": 0, "pinned": 4, "difference": 0.0}
    row["rounding"] = 1e-7
    free = row | {"arch": "b", "free": 1, "pinned": 3, "difference": 1e-6}
    text = said(draw_coverage(tabled(({}, pd.DataFrame([row, free]))), "title"))
    assert "every channel is pinned in place: a" in text
