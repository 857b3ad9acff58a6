"""The outputs of a model: every tensor is found, so that its scale stays 1 and it is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from teleport import ChangeOfBasis
from teleport._tracing.outputs import difference, outputs_of, tensors_returned


@dataclass
class Output:
    logits: Tensor
    hidden: Any = None


@dataclass(frozen=True, slots=True)
class Slotted:
    logits: Tensor


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def test_every_container_and_object_is_opened_once():
    one, two, three, four, five = (torch.full((1,), float(value)) for value in range(5))
    loop = Plain(of=three)
    loop.itself = loop
    result = [(one, {"two": two}), loop, Output(four, Slotted(five)), None, "name", torch.relu, nn.Linear(1, 1), torch]
    assert sorted(float(tensor) for tensor in tensors_returned(result)) == [0, 1, 2, 3, 4]


class Returning(nn.Module):
    """A hidden layer and a head, whose values ``give`` combines into the result."""

    def __init__(self, give: Any) -> None:
        super().__init__()
        self.hidden, self.head, self.give = nn.Linear(4, 6), nn.Linear(6, 2), give

    def forward(self, x: Tensor) -> Any:
        hidden = self.hidden(x)
        return self.give(self.head(hidden.relu()), hidden)


RETURNED = {
    "a dataclass": Output,
    "a dataclass in a tuple": lambda out, hidden: (out, Output(out, [Slotted(hidden)])),
    "an object": lambda out, hidden: Plain(out=out, more={"hidden": hidden}),
    "a distribution": lambda out, hidden: (out, torch.distributions.Normal(hidden, hidden.detach() ** 2 + 1)),
}


@pytest.mark.parametrize("activations", ["keep", "teleport"])
@pytest.mark.parametrize("name", RETURNED)
def test_no_output_is_overlooked(name, activations):
    torch.manual_seed(0)
    model, x = Returning(RETURNED[name]).double(), torch.randn(5, 4).double()
    before = list(tensors_returned(model(x)))
    report = ChangeOfBasis(0.9, activations=activations, guard="none")(model, [x])
    after = list(tensors_returned(report.model(x)))
    assert difference(before, after) < 1e-12
    assert report.channels == (0, 0, 8)


def test_outputs_without_floating_point_tensors_are_an_error():
    with pytest.raises(ValueError, match="returned no floating-point tensor to compare"):
        outputs_of(nn.Identity(), torch.arange(3), lambda model, batch: {"index": model(batch)})


INFINITE, NOT_A_NUMBER = float("inf"), float("nan")
DIFFERENCES = {
    "relative to the largest": ([1.0, -4.0], [2.0, -4.0], 0.25),
    "absolute beside nothing but zeros": ([0.0, 0.0], [0.5, -0.25], 0.5),
    "of the same infinity and NaN": ([INFINITE, NOT_A_NUMBER, 2.0], [INFINITE, NOT_A_NUMBER, 3.0], 0.5),
    "of a number and NaN": ([1.0, 2.0], [1.0, NOT_A_NUMBER], INFINITE),
    "of other shapes": ([1.0, 2.0], [1.0], INFINITE),
    "of nothing": ([], [], 0.0),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_by_hand(name):
    before, after, expected = DIFFERENCES[name]
    pairs = [torch.tensor([1.0]), torch.tensor(before)], [torch.tensor([1.0]), torch.tensor(after)]
    assert difference(*pairs) == expected
    assert difference(*(reversed(each) for each in pairs)) == expected
