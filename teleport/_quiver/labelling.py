"""What the tensors of an evaluation scale with, so far: what the rules of torch functions read and add to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from teleport._quiver.parameter_scales import ParameterScales, Weight
from teleport._quiver.quiver import Site
from teleport._quiver.scale_indices import compact, constant
from teleport._quiver.scale_variables import ScaleVariables
from teleport._quiver.unreached import Scopes
from teleport._tracing.functions import called
from teleport._tracing.ownership import Owners, distinct_elements, storage_of
from teleport._tracing.reasons import SHARED_STORAGE


class Memory(Owners):
    """Whose memory a tensor is: a parameter's, or that of a labelled tensor (named ``#`` and its storage)."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(parameters)
        self.labels: dict[str, list[Tensor]] = {}

    def of(self, tensor: Tensor | None) -> list[str]:
        """The names of the parameters, and of the labelled memory, that the tensor reaches into."""
        names = super().of(tensor)
        name = None if tensor is None else f"#{storage_of(tensor)}"
        return [*names, name] if name in self.labels else names

    def note(self, tensor: Tensor, label: Tensor) -> None:
        """Let a tensor's memory be labelled."""
        self.labels.setdefault(f"#{storage_of(tensor)}", []).append(label)

    def labels_of(self, tensor: Tensor) -> list[Tensor]:
        """All labels in the tensor's memory."""
        return self.labels.get(f"#{storage_of(tensor)}", [])


class Labelling:
    """The labels of tensors, and what must hold between the units that they name.

    Args:
        parameters: those that may be scaled, by name.
        in_place: whether the changed parameters alone must keep the function.
        frozen_stay: whether parameters that require no gradient stay.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], in_place: bool, frozen_stay: bool) -> None:
        self.memory = Memory(parameters)
        self.parameters = parameters
        self.in_place = in_place
        self.units = ScaleVariables()
        self.scales = ParameterScales(parameters, self.units)
        self.sites: list[Site] = []
        self.calls: Counter[Callable[..., Any]] = Counter()  # of activations, in the evaluation that runs
        self._names = {parameter: name for name, parameter in parameters.items()}
        self.scopes = Scopes(parameters, self.labels_at)
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}  # the tensors are held so that no other takes their id
        for name, parameter in parameters.items():
            if frozen_stay and not parameter.requires_grad:
                self.scales.fix(name, "it requires no gradient")
            if parameter.is_complex():
                self.scales.fix(name, "it is complex")
            if not distinct_elements(parameter):
                self.scales.fix(name, "some of its elements are one in memory")
        for name in self.memory.shared():
            self.scales.fix(name, SHARED_STORAGE)

    def label(self, tensor: Tensor) -> Tensor:
        """The unit of each element, in the tensor's shape; a parameter that may move has one for each element."""
        held = self._labels.get(id(tensor))
        if held is not None:
            if held[1].shape == tensor.shape:
                return held[1]
            self.units.pin(held[1], "its shape was changed in place")
        name = self._name(tensor)
        if name is not None:
            return self.scales.elements(name)
        for label in self.memory.labels_of(tensor):
            self.units.pin(label, "it is read through a view that no torch function made")
        return constant(tensor.shape)

    def held(self, tensor: Any) -> bool:
        """Whether the tensor is known to scale with units."""
        return id(tensor) in self._labels

    def _name(self, tensor: Tensor) -> str | None:
        """The name of the parameter that this tensor is, and not only a part or a view of."""
        return self._names.get(tensor) if isinstance(tensor, nn.Parameter) else None

    def parameters_of(self, tensor: Tensor) -> list[str]:
        """The parameters into which a labelled tensor, or a parameter, reaches."""
        known = self.held(tensor) or self._name(tensor) is not None
        return [name for name in self.memory.of(tensor) if name in self.parameters] if known else []

    def weight(self, tensor: Tensor) -> Weight | None:
        """The parameter that a tensor is or, element by element, comes from; ``None`` where there is no such one."""
        name = self._name(tensor)
        if name is not None:
            return Weight(name, tensor.shape, None)
        return self.scales.weight_with(self.label(tensor)) if self.held(tensor) else None

    def pin(self, label: Tensor, func: Callable[..., Any], why: str = "through which no factor is moved") -> None:
        """Keep the factors of these units at 1, because of a function that they enter."""
        self.units.pin(label, f"its output enters {called(func)}, {why}")

    def only_positive(self, label: Tensor, func: Callable[..., Any]) -> None:
        """Keep the factors of these units positive, because of a function that they enter."""
        self.units.only_positive(label, f"its output enters {called(func)}, through which only positive factors move")

    def activate(self, func: Callable[..., Any], label: Tensor, homogeneous: bool) -> Tensor:
        """What an activation makes of a label, and what it takes for that: a site, positive factors, or 1."""
        if not self.in_place:
            if bool(compact(label).any()):
                self.sites.append(Site(self.calls[func] - 1, func, compact(label), homogeneous))
            return label
        if homogeneous:
            self.only_positive(label, func)
            return label
        self.pin(label, func)
        return constant(label.shape)

    def produce(self, kind: str, weight: Weight, made: Iterable[int], read: Tensor) -> Tensor:
        """Units that a weight makes along its axes ``made``, one an element, of length 1 along its other axes.

        Args:
            kind: what the weight is used as.
            weight: that is used.
            made: its axes that are the result's.
            read: the units that it reads, in a shape that broadcasts to the weight's.
        """
        return self.scales.produce(kind, weight, set(made), read)

    def hold(self, tensor: Tensor, label: Tensor) -> None:
        """Let a tensor have this label."""
        self._labels[id(tensor)] = (tensor, label)
        self.scopes.add(label)
        self.memory.note(tensor, label)

    def labels_at(self, tensor: Tensor, all_views: bool = False) -> list[Tensor]:
        """The tensor's label; all those in its memory where it has none of its own, or ``all_views`` are asked for."""
        if self.held(tensor) and not all_views:
            return [self.label(tensor)]
        return self.memory.labels_of(tensor)

    def forget_tensors(self) -> None:
        """Let go of an evaluation's tensors; what was said of units stays."""
        self.memory.labels.clear()
        self._labels.clear()
        self.calls.clear()
