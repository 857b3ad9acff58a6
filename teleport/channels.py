"""Which hidden channels a positive factor may be moved through: read off an evaluation of the loss.

Each output channel of a linear layer, a convolution or a normalisation's affine part is a *unit*: its rows may be
multiplied by tau and what reads it divided by tau. Every torch function is watched, and a tensor that scales with
units carries a label, an integer tensor of its own shape with the unit of each element (0: scales with none). A
function that has no rule (:mod:`teleport.homogeneous`) pins the units that enter it to tau = 1, with the reason, so
that what is not understood is never moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from teleport.capture import EXPORTS
from teleport.homogeneous import output_labels
from teleport.ownership import Owners, storage_of, tensors_in
from teleport.reads import Reads


@dataclass
class Scaled:
    """A parameter that scales with units: row i with ``rows[i]``, and column j inversely with ``columns[j]``."""

    parameter: nn.Parameter
    rows: Tensor  # [out], units
    columns: Tensor  # [in], units; [1], the unit 0, for a parameter that is one vector

    def factors(self, log_tau: Tensor) -> Tensor:
        """What the parameter is multiplied by, in its shape or one that broadcasts to it; ``log_tau [units]``."""
        grid = torch.exp(log_tau[self.rows][:, None] - log_tau[self.columns][None, :])
        return grid.reshape(grid.shape + (1,) * (self.parameter.dim() - 2)) if self.parameter.dim() > 1 else grid[:, 0]


@dataclass
class Channels:
    """The units of a model, and the variables that they are functions of: ``log tau = sign * x[variable]``.

    Attributes:
        scaled: parameters, by name, that any free unit scales.
        groups: a weight's name -> the units of its rows.
        kinds: a weight's name -> what it is used as.
        variable: [units], the variable of each unit; ``sign``: [units], 1, -1 (a key, which undoes its query), or 0
            where the unit is pinned.
        blocks: variables a group, none of which share a term of the gradient norm.
        reasons: why a group's units, or some of them, are pinned; and why other parameters stay.
    """

    scaled: dict[str, Scaled]
    groups: dict[str, Tensor]
    kinds: dict[str, str]
    variable: Tensor
    sign: Tensor
    blocks: list[Tensor]
    reasons: dict[str, str]

    def log_tau(self, x: Tensor) -> Tensor:
        """The logarithm of every unit's factor, at the variables ``x``."""
        padded = torch.cat([x, x.new_zeros(1)])  # where there is no variable at all
        return self.sign * padded[self.variable]

    @property
    def variables(self) -> int:
        """How many there are."""
        return sum(len(block) for block in self.blocks)


def find_channels(
    evaluate: Callable[[Any], Tensor], batches: Iterable[Any], named_parameters: Mapping[str, nn.Parameter]
) -> Channels:
    """Watch the loss of each batch and tell which channels may be scaled.

    Args:
        evaluate: computes the loss of a batch.
        batches: at least one; what they show differently is pinned.
        named_parameters: of the model; those that require no gradient stay, and with them the units they scale with.
    """
    tracker = Tracker(named_parameters)
    for batch in batches:
        with torch.enable_grad(), tracker.reads, tracker:
            loss = evaluate(batch)
        tracker.end_of_batch(loss)
    return tracker.result()


class _Memory(Owners):
    """Whose memory a tensor is: a parameter's, or that of a labelled tensor (named ``#`` and its storage)."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(parameters)
        self.labels: dict[str, list[Tensor]] = {}

    def of(self, tensor: Tensor | None) -> list[str]:
        """The names of the parameters, and of the labelled memory, that the tensor reaches into."""
        names = super().of(tensor)
        name = None if tensor is None else f"#{storage_of(tensor)}"
        return [*names, name] if name in self.labels else names


class Tracker(TorchFunctionMode):
    """Carries labels through the torch functions of an evaluation."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.parameters = parameters
        self.names = {parameter: name for name, parameter in parameters.items()}
        self.memory = _Memory(parameters)
        self.reads = Reads(self.memory)
        self.scaled: dict[str, Scaled] = {}
        self.groups: dict[str, Tensor] = {}
        self.kinds: dict[str, str] = {}
        self.fixed: dict[str, str] = {}  # parameters that must stay
        self.pinned: dict[int, str] = {}  # units
        self.partners: dict[int, int] = {}  # units whose factors are each other's inverse
        self._units = 1
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}  # the tensors are held so that no other takes their id
        self._used: set[str] = set()
        for name, parameter in parameters.items():
            if not parameter.requires_grad:
                self.fixed[name] = "it requires no gradient"
        for name in self.memory.shared():
            self.fixed[name] = "its memory is another parameter's too"

    def __torch_function__(  # the mode itself is off in here
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = {name for tensor in tensors_in((args, kwargs)) for name in self.memory.of(tensor)}
        if self.reads.paused or not given:
            return func(*args, **kwargs)
        with self.reads.frame(given) as read:
            result = func(*args, **kwargs)
        if getattr(func, "__name__", "") in EXPORTS:
            read |= given
        with self.reads.pause():
            self._note(func, args, kwargs, result, read)
        return result

    def _note(self, func: Callable[..., Any], args: Any, kwargs: Any, result: Any, read: set[str]) -> None:
        """Label the result of a call, or pin what entered it."""
        enters = f"enters {resolve_name(func) or getattr(func, '__qualname__', str(func))}"
        explained: set[str] = set()
        labels = output_labels(self, func, args, kwargs, result, explained)
        for name in read - explained:
            if name in self.parameters:
                self.fixed.setdefault(name, f"it {enters} other than as a layer's weight")
        if labels is not None:
            for tensor, label in zip(tensors_in(result), labels, strict=True):
                if bool(label.any()):
                    self._hold(tensor, label)
        elif any(True for _ in tensors_in(result)) or any(name not in self.parameters for name in read):
            for tensor in tensors_in((args, kwargs)):
                for label in self._labels_at(tensor):
                    self.pin(label, f"its output {enters}, through which no factor is moved")

    def label(self, tensor: Tensor) -> Tensor:
        """The unit of each element, in the tensor's shape."""
        held = self._labels.get(id(tensor))
        return torch.zeros_like(tensor, dtype=torch.int64, requires_grad=False) if held is None else held[1]

    def labelled(self, tensor: Tensor) -> bool:
        """Whether the tensor scales with units."""
        return id(tensor) in self._labels

    def pin(self, units: Tensor, reason: str) -> None:
        """Keep the factors of these units at 1."""
        for unit in set(units.flatten().tolist()):
            self.pinned.setdefault(unit, reason)

    def whole(self, tensor: Tensor | None) -> str | None:
        """The name of the parameter that this tensor is, and not only a part or a view of."""
        return self.names.get(tensor) if isinstance(tensor, nn.Parameter) else None

    def produce(self, kind: str, weight: str, bias: str | None, columns: Tensor | None) -> Tensor:
        """Note a layer that multiplies by ``weight``, reads the units ``columns``, and makes units of its own."""
        parameter = self.parameters[weight]
        if weight not in self.groups:
            self.groups[weight] = torch.arange(self._units, self._units + len(parameter), device=parameter.device)
            self.kinds[weight] = kind
            self._units += len(parameter)
        rows = self.groups[weight]
        for name in filter(None, (weight, bias)):
            read = columns if name == weight and columns is not None else rows.new_zeros(1)
            self._scale(name, rows, read)
        return rows

    def invert(self, units: Tensor, others: Tensor) -> None:
        """Let each unit's factor be the inverse of the other's (a query's and a key's), or pin both."""
        pairs = list(zip(units.flatten().tolist(), others.flatten().tolist(), strict=True))
        partners = dict(pairs) | {other: unit for unit, other in pairs}
        known = all(self.partners.get(unit, partner) == partner for unit, partner in partners.items())
        if known and 0 not in partners and len(partners) == 2 * len(pairs):
            self.partners |= partners
        else:
            self.pin(torch.cat([units.flatten(), others.flatten()]), "its query and key have no channels of their own")

    def _scale(self, name: str, rows: Tensor, columns: Tensor) -> None:
        """Note that a parameter scales with these units; a second way to scale it leaves none."""
        held = self.scaled.setdefault(name, Scaled(self.parameters[name], rows, columns))
        same = torch.equal(held.rows, rows) and torch.equal(held.columns, columns)
        if name in self._used or not same:
            self.fixed.setdefault(name, "it is used more than once" if name in self._used else "its uses differ")
            self.pin(torch.cat([rows, columns]), f"{name} stays: {self.fixed[name]}")
        self._used.add(name)

    def _hold(self, tensor: Tensor, label: Tensor) -> None:
        self._labels[id(tensor)] = (tensor, label)
        self.memory.labels.setdefault(f"#{storage_of(tensor)}", []).append(label)

    def _labels_at(self, tensor: Tensor) -> list[Tensor]:
        """All labels in the tensor's memory."""
        return [label for name in self.memory.of(tensor) for label in self.memory.labels.get(name, [])]

    def end_of_batch(self, loss: Tensor) -> None:
        """Judge what the loss itself is and what was read out of sight, and let go of the batch's tensors."""
        for label in self._labels_at(loss):
            self.pin(label, "its output is the loss")
        for name, operation in self.reads.unseen.items():
            reason = f"{operation} reads it where no torch function shows it"
            if name in self.parameters:
                self.fixed.setdefault(name, reason)
            for label in self.memory.labels.get(name, []):
                self.pin(label, reason)
        self.reads.unseen.clear()
        self.memory.labels.clear()
        self._labels.clear()
        self._used.clear()

    def result(self) -> Channels:
        """Units and variables, with the pins carried to all that hangs together."""
        for name, scaled in self.scaled.items():
            if name in self.fixed:
                self.pin(torch.cat([scaled.rows, scaled.columns]), f"{name} stays: {self.fixed[name]}")
        self._pin_coupled()
        for unit, partner in self.partners.items():
            if unit in self.pinned:
                self.pinned.setdefault(partner, self.pinned[unit])
        device = next(iter(self.parameters.values())).device
        variable = torch.zeros(self._units, dtype=torch.int64)
        sign = torch.zeros(self._units, dtype=torch.float64)
        blocks: list[Tensor] = []
        count = 0
        for group in self.groups.values():
            first = count
            for unit in group.tolist():
                if unit not in self.pinned and not sign[unit]:
                    variable[unit], sign[unit] = count, 1
                    if unit in self.partners:
                        variable[self.partners[unit]], sign[self.partners[unit]] = count, -1
                    count += 1
            if count > first:
                blocks.append(torch.arange(first, count, device=device))
        moving = {name: each for name, each in self.scaled.items() if self._moves(each, sign)}
        return Channels(
            moving, self.groups, self.kinds, variable.to(device), sign.to(device), blocks, self._reasons(moving)
        )

    def _pin_coupled(self) -> None:
        """A weight from a group to itself would tie the group's own factors to each other."""
        group_of = {unit: name for name, group in self.groups.items() for unit in group.tolist()}
        for scaled in self.scaled.values():
            units = [set(side.tolist()) - {0} for side in (scaled.rows, scaled.columns)]
            rows, columns = ({group_of[unit] for unit in s | {self.partners.get(u, u) for u in s}} for s in units)
            for name in rows & columns:
                self.pin(self.groups[name], "its channels are tied to each other")

    @staticmethod
    def _moves(scaled: Scaled, sign: Tensor) -> bool:
        units = torch.cat([scaled.rows, scaled.columns]).to(sign.device)
        return bool(sign[units].any())

    def _reasons(self, moving: Mapping[str, Scaled]) -> dict[str, str]:
        """Why groups of channels stay, in part or whole, and parameters that belong to none."""
        reasons = {}
        for name, group in self.groups.items():
            pinned = [self.pinned[unit] for unit in group.tolist() if unit in self.pinned]
            if pinned:
                reasons[name] = pinned[0]
        for name, parameter in self.parameters.items():
            if parameter.requires_grad and name not in moving and name not in reasons and name in self.fixed:
                reasons[name] = self.fixed[name]
        return reasons
