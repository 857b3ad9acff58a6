"""The table of precisions in docs/library.md: each cell is tried, and says what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from teleport import Orbit, UnsupportedModel
from tests.teleport.methods import CLASSES, ROWS, Row, after_it, scale_units, unchanged, values

TEXT = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
SECTION = TEXT.split("## Precision, compiled and checkpointed models\n")[1].split("\n## ")[0]
HEAD, _, *LINES = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*", SECTION, re.M)
]
CELLS = [(line[0], column, cell) for line in LINES for column, cell in zip(HEAD[1:], line[1:], strict=True)]
METHODS = {row.name: row for row in ROWS}


class Checkpointed(nn.Module):
    """The parts of a network computed again in the backward pass, without reentrance."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for first in range(0, len(self.layers), 2):
            x = checkpoint(self.layers[first : first + 2], x, use_reentrant=False)
        return x


def under_autocast(model: nn.Module, batch: Any) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return F.cross_entropy(model(batch[0]).float(), batch[1])


def setting(column: str) -> tuple[nn.Module, list[Any], Any, torch.dtype]:
    """The model, its batches, the loss, and the precision in which that is computed."""
    if column == "autocast bfloat16":
        return *CLASSES.make(torch.float32), under_autocast, torch.bfloat16
    dtype = getattr(torch, column, torch.float32)
    model, batches = CLASSES.make(dtype)
    if column == "compiled":
        model = torch.compile(model, backend="aot_eager")
    elif column == "checkpointed":
        model = Checkpointed(model)
    return model, batches, CLASSES.loss_fn, dtype


def method_of(row: Row, model: nn.Module) -> Any:
    if row.name != "orbit":
        return row.make()
    own = {name[-len("0.weight") :]: name for name, _ in model.named_parameters() if name.endswith("weight")}
    prefix = own["0.weight"].removesuffix("0.weight")  # that of a wrapper

    def act(theta: torch.Tensor, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        moved = scale_units(theta, {name.removeprefix(prefix): value for name, value in weights.items()})
        return {prefix + name: value for name, value in moved.items()}

    return Orbit(act, shape=(24,), relative_cap=3.0)


def test_the_table_has_every_method_and_column():
    assert [line[0] for line in LINES] == list(METHODS)
    columns = ["float64", "float32", "float16", "bfloat16", "autocast bfloat16", "compiled", "checkpointed"]
    assert HEAD[1:] == columns


@pytest.mark.parametrize(
    ("method", "column", "cell"),
    [
        pytest.param(*cell, marks=[pytest.mark.slow] if cell[1] == "compiled" else [], id=f"{cell[0]}-{cell[1]}")
        for cell in CELLS
    ],
)
def test_a_cell_says_what_happens(method, column, cell):
    row = METHODS[method]
    model, batches, loss_fn, dtype = setting(column)
    before, loss = values(model), float(loss_fn(model, batches[0]))
    if cell == "refused":
        with pytest.raises(UnsupportedModel):
            method_of(row, model)(model, batches, loss_fn)
        assert unchanged(model, before)
        return
    report = method_of(row, model)(model, batches, loss_fn)
    if cell == "undone":
        assert "more than the tolerance" in report.batches[0].reason
        assert unchanged(model, before)
        return
    assert cell == "yes"
    assert all(batch.accepted for batch in report.batches)
    assert not unchanged(model, before)
    after = float(loss_fn(after_it(model, report), batches[0]))
    assert abs(after - loss) <= row.keeps + 2 * torch.finfo(dtype).eps * max(1.0, abs(loss))
    if row.raises_norm:
        assert report.gradient_norm_after > 1.1 * report.gradient_norm_before
