"""The scale indices of an evaluation so far, which the rules of torch functions read and extend."""

from __future__ import annotations

import weakref
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


class IndexedOwners(Owners):
    """The owner of a tensor's memory: a parameter, or a tensor with a scale index (named ``#`` and its storage)."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(parameters)
        self.scale_indices: dict[str, list[Tensor]] = {}

    def of(self, tensor: Tensor | None) -> list[str]:
        """The names of the parameters and of the indexed memory that the tensor overlaps."""
        names = super().of(tensor)
        name = None if tensor is None else f"#{storage_of(tensor)}"
        return [*names, name] if name in self.scale_indices else names

    def note(self, tensor: Tensor, scale_index: Tensor) -> None:
        """Register the scale index of a tensor's memory."""
        self.scale_indices.setdefault(f"#{storage_of(tensor)}", []).append(scale_index)

    def indices_of(self, tensor: Tensor) -> list[Tensor]:
        """All scale indices in the tensor's memory."""
        return self.scale_indices.get(f"#{storage_of(tensor)}", [])


class ScaleState:
    """The scale indices of tensors, and the constraints between their scale variables.

    Args:
        parameters: those that may be scaled, by name.
        in_place: whether the changed parameters alone must keep the function.
        frozen_stay: whether parameters that require no gradient stay.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], in_place: bool, frozen_stay: bool) -> None:
        self.memory = IndexedOwners(parameters)
        self.parameters = parameters
        self.in_place = in_place
        self.variables = ScaleVariables()
        self.scales = ParameterScales(parameters, self.variables)
        self.sites: list[Site] = []
        self.calls: Counter[Callable[..., Any]] = Counter()  # of activations, in the evaluation that runs
        self._names = {parameter: name for name, parameter in parameters.items()}
        self._gathered: dict[int, str] = {}
        self.scopes = Scopes(self._name, self.indices_at)
        self._zeros: dict[int, tuple[Tensor, int]] = {}  # tensors made as zeros, with their version then
        self._indices: dict[int, tuple[Tensor, Tensor]] = {}  # the tensors are held so that no other takes their id
        for name, parameter in parameters.items():
            if frozen_stay and not parameter.requires_grad:
                self.scales.pin(name, "it requires no gradient")
            if parameter.is_complex():
                self.scales.pin(name, "it is complex")
            if not distinct_elements(parameter):
                self.scales.pin(name, "some of its elements share one memory location")
        for name in self.memory.shared():
            self.scales.pin(name, SHARED_STORAGE)

    def scale_index(self, tensor: Tensor) -> Tensor:
        """The scale variable of each element, in the tensor's shape; a parameter has one per element."""
        held = self._indices.get(id(tensor))
        if held is not None:
            if held[1].shape == tensor.shape:
                return held[1]
            self.variables.pin(held[1], "its shape was changed in place")
        name = self._name(tensor)
        if name is not None:
            return self.scales.elements(name)
        for scale_index in self.memory.indices_of(tensor):
            self.variables.pin(scale_index, "it is read through a view that no torch function made")
        return constant(tensor.shape)

    def note_zero(self, tensor: Tensor) -> None:
        """The tensor was made as zeros."""
        if not tensor.is_inference():
            self._zeros[id(tensor)] = (tensor, tensor._version)

    def is_zero(self, tensor: Tensor) -> bool:
        """Whether the tensor was made as zeros and not written to since."""
        made = self._zeros.get(id(tensor))
        return made is not None and not tensor.is_inference() and tensor._version == made[1]

    def held(self, tensor: Any) -> bool:
        """Whether the tensor has a scale index."""
        return id(tensor) in self._indices

    def _name(self, tensor: Tensor) -> str | None:
        """The name of the parameter that this tensor is, not only a part or a view of one."""
        return self._names.get(tensor) if isinstance(tensor, nn.Parameter) else self._gathered.get(id(tensor))

    def note_gathered(self, rows: nn.Parameter, name: str, whole: Tensor) -> None:
        """A tensor is a parameter as a whole, as long as it exists, gathered from processes that hold rows of it."""
        self._names[rows] = name
        self._gathered[id(whole)] = name
        weakref.finalize(whole, self._gathered.pop, id(whole), None)

    def parameters_of(self, tensor: Tensor) -> list[str]:
        """The parameters that an indexed tensor, or a parameter, overlaps."""
        known = self.held(tensor) or self._name(tensor) is not None
        return [name for name in self.memory.of(tensor) if name in self.parameters] if known else []

    def weight(self, tensor: Tensor) -> Weight | None:
        """The parameter that a tensor is or, element by element, comes from; ``None`` if there is none."""
        name = self._name(tensor)
        if name is not None:
            return Weight(name, tensor.shape, None)
        return self.scales.weight_with(self.scale_index(tensor)) if self.held(tensor) else None

    def pin(self, scale_index: Tensor, func: Callable[..., Any], why: str = "through which no factor is moved") -> None:
        """Pin these scale variables to 1, because of a function that uses them."""
        self.variables.pin(scale_index, f"its output enters {called(func)}, {why}")

    def only_positive(self, scale_index: Tensor, func: Callable[..., Any]) -> None:
        """Constrain these scale variables to positive values, because of a function that uses them."""
        self.variables.only_positive(
            scale_index, f"its output enters {called(func)}, through which only positive factors move"
        )

    def activate(self, func: Callable[..., Any], scale_index: Tensor, homogeneous: bool) -> Tensor:
        """The scale index of an activation's result, with the constraint: a site, positive factors, or 1."""
        if not self.in_place:
            if bool(compact(scale_index).any()):
                self.sites.append(Site(self.calls[func] - 1, func, compact(scale_index), homogeneous))
            return scale_index
        if homogeneous:
            self.only_positive(scale_index, func)
            return scale_index
        self.pin(scale_index, func)
        return constant(scale_index.shape)

    def produce(self, kind: str, weight: Weight, made: Iterable[int], read: Tensor) -> Tensor:
        """Scale variables of the outputs of a weight along its axes ``made``, one per element, of length 1 along other
        axes.

        Args:
            kind: the use of the weight.
            weight: the weight.
            made: the axes of the weight that are axes of the result.
            read: the scale variables of its inputs, in a shape that broadcasts to the weight's.
        """
        return self.scales.produce(kind, weight, set(made), read)

    def hold(self, tensor: Tensor, scale_index: Tensor) -> None:
        """Set the scale index of a tensor."""
        self._indices[id(tensor)] = (tensor, scale_index)
        self.scopes.add(scale_index)
        self.memory.note(tensor, scale_index)

    def indices_at(self, tensor: Tensor, all_views: bool = False) -> list[Tensor]:
        """The tensor's scale index; all those in its memory if it has none of its own or if ``all_views``."""
        if self.held(tensor) and not all_views:
            return [self.scale_index(tensor)]
        return self.memory.indices_of(tensor)

    def forget_tensors(self) -> None:
        """Release the tensors of an evaluation; constraints are kept."""
        self.memory.scale_indices.clear()
        self._indices.clear()
        self._zeros.clear()
        self.calls.clear()
