"""Models that keep tensors of earlier evaluations in attributes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Caching(nn.Module):
    """A network whose second layer is multiplied by a matrix that is computed from a weight.

    The parameters also have a use without the cache, so that a change of basis moves them.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 8).double(), nn.Linear(8, 8, bias=False).double()
        self.last = nn.Linear(8, 3).double()

    def computed(self) -> Tensor:
        """What the caches hold, with the factors of the weight."""
        return 2.0 * self.second.weight

    def table(self) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Any:
        hidden = torch.relu(self.first(x))
        return self.last(torch.relu(self.second(hidden)) + torch.relu(hidden @ self.table().T))


class InNone(Caching):
    held: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.held = None

    def table(self) -> Tensor:
        if self.held is None:
            self.held = self.computed()
        return self.held


class InAbsent(Caching):
    held: Tensor

    def table(self) -> Tensor:
        if not hasattr(self, "held"):
            self.held = self.computed()
        return self.held


class InDictionary(Caching):
    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, Tensor] = {}

    def table(self) -> Tensor:
        if "table" not in self.held:
            self.held["table"] = self.computed()
        return self.held["table"]


class InList(Caching):
    def __init__(self) -> None:
        super().__init__()
        self.held: list[Tensor] = []

    def table(self) -> Tensor:
        if not self.held:
            self.held.append(self.computed())
        return self.held[0]


class Holder:
    """An object of the model's package that holds a tensor."""

    value: Tensor | None = None


class InObject(Caching):
    def __init__(self) -> None:
        super().__init__()
        self.held: Holder | None = None

    def table(self) -> Tensor:
        if self.held is None:
            self.held = Holder()
        if self.held.value is None:
            self.held.value = self.computed()
        return self.held.value


class InProperty(Caching):
    @cached_property
    def held(self) -> Tensor:
        return self.computed()

    def table(self) -> Tensor:
        return self.held


class InMethod(Caching):
    @lru_cache(8)  # noqa: B019  # the kind of cache under test
    def held(self) -> Tensor:
        return self.computed()

    def table(self) -> Tensor:
        return self.held()


@lru_cache(8)
def _of_model(model: Caching) -> Tensor:
    return model.computed()


class InFunction(Caching):
    def table(self) -> Tensor:
        return _of_model(self)


class InBuffer(Caching):
    held: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("held", None, persistent=False)

    def table(self) -> Tensor:
        if self.held is None:
            self.held = self.computed()
        return self.held


CACHES: list[type[Caching]] = [
    *(InNone, InAbsent, InDictionary, InList, InObject, InProperty, InMethod, InFunction, InBuffer),
]


class Appending(Caching):
    """Attends to what earlier evaluations appended, as a key-value cache."""

    keys: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        keys = torch.relu(self.first(x))
        self.keys = keys if self.keys is None else torch.cat([self.keys, keys])
        return self.last(torch.softmax(torch.relu(self.second(keys)) @ self.keys.T, 1) @ self.keys)


class Writing(Caching):
    """The same in a tensor that was allocated before."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.length = torch.zeros(64, 8).double(), 0

    def forward(self, x: Tensor) -> Tensor:
        keys = torch.relu(self.first(x))
        self.keys[self.length : self.length + len(x)] = keys.detach()
        self.length += len(x)
        used = self.keys[: self.length]
        return self.last(torch.softmax(torch.relu(self.second(keys)) @ used.T, 1) @ used)


class Once(Caching):
    """Computes a matrix from its weight in the constructor, with its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 2.0 * self.second.weight.detach().clone().requires_grad_()

    def table(self) -> Tensor:
        return self.held


class Constants(Caching):
    """Keeps constants, records and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.calls, self.record = torch.tensor(0.5).double(), 0, torch.zeros(1)
        self.optional: Tensor | None = torch.ones(8).double() / 3

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        hidden = torch.relu(self.first(x)) * self.scale
        if self.optional is not None:
            hidden = hidden * self.optional
        self.record = hidden
        return self.last(torch.relu(self.second(hidden)))


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def fresh(kind: Callable[[], Caching], model: nn.Module) -> Caching:
    """A new model with the same parameters, which has computed nothing yet."""
    other = kind()
    other.load_state_dict(model.state_dict())
    return other
