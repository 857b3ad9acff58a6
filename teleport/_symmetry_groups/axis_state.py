"""The axes of the tensors of an evaluation so far, which the rules of torch functions read and extend."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from teleport._quiver.unreached import Scopes
from teleport._symmetry_groups.axes import AxisVariables
from teleport._symmetry_groups.axis import Axis, Level, factors_in, fixed
from teleport._symmetry_groups.later import Later, Mixture
from teleport._tracing.functions import called
from teleport._tracing.ownership import Owners, distinct_elements, storage_of
from teleport._tracing.reasons import SHARED_STORAGE

Axes = tuple[Axis, ...]


class AxisOwners(Owners):
    """The owner of a tensor's memory: a parameter or buffer, or a tensor with axes (named ``#`` and its storage)."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        super().__init__(held)  # type: ignore[arg-type]
        self.axes: dict[str, list[Axes]] = {}

    def of(self, tensor: Tensor | None) -> list[str]:
        """The names of the parameters and of the memory with axes that the tensor overlaps."""
        names = super().of(tensor)
        name = None if tensor is None else f"#{storage_of(tensor)}"
        return [*names, name] if name in self.axes else names

    def note(self, tensor: Tensor, axes: Axes) -> None:
        """Register the axes of a tensor's memory."""
        self.axes.setdefault(f"#{storage_of(tensor)}", []).append(axes)

    def axes_of(self, tensor: Tensor) -> list[Axes]:
        """All axes in the tensor's memory."""
        return self.axes.get(f"#{storage_of(tensor)}", [])


class AxisState:
    """The axes of tensors, and the constraints between their variables.

    Args:
        parameters: by name.
        buffers: the persistent buffers of the model by name, of which the statistics of batch norm move along.
        foldable: the names of weights that may be folded into others, so that they are one.

    Attributes:
        folded: those of them that multiply the units of an axis.
        multipliers: all parameters that do.
        held_axes: of each parameter and buffer that was read.
        contexts: the axes of all tensors, each with the axes over which the tensor's elements were mixed left out.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], buffers: Mapping[str, Tensor], foldable: Iterable[str] = ()
    ) -> None:
        self.parameters = parameters
        self.foldable = frozenset(foldable)
        self.folded: dict[str, None] = {}
        self.multipliers: dict[str, None] = {}
        self.named: dict[str, Tensor] = {**buffers, **parameters}
        self.memory = AxisOwners(self.named)
        self.variables = AxisVariables()
        self.held_axes: dict[str, Axes] = {}
        self.contexts: list[Axes] = []
        self.pinned: dict[str, str] = {}
        self._names = {id(tensor): name for name, tensor in self.named.items()}
        self.scopes = Scopes(lambda held: self._names.get(id(held)), self.axes_at)  # type: ignore[arg-type]
        self._axes: dict[int, tuple[Tensor, Axes]] = {}  # the tensors are held so that no other takes their id
        self._later: dict[int, Later] = {}
        self._uniform: dict[int, tuple[Tensor, int]] = {}  # tensors made of one value, with their version then
        for name, parameter in parameters.items():
            if not parameter.requires_grad:
                self.pin_held(name, "it requires no gradient")
            if parameter.is_complex():
                self.pin_held(name, "it is complex")
            if not distinct_elements(parameter):
                self.pin_held(name, "some of its elements share one memory location")
        for name in self.memory.shared():
            self.pin_held(name, SHARED_STORAGE)

    def name_of(self, tensor: Tensor) -> str | None:
        """The name of the parameter or buffer that this tensor is, not only a part or a view of one."""
        return self._names.get(id(tensor))

    def note_gathered(self, rows: Tensor, name: str, whole: Tensor) -> None:
        """A tensor is a parameter as a whole, as long as it exists, gathered from processes that hold rows of it."""
        self._names[id(rows)] = self._names[id(whole)] = name
        weakref.finalize(whole, self._names.pop, id(whole), None)

    def axes(self, tensor: Tensor, statistics: bool = False) -> Axes:
        """The axes of a tensor.

        Args:
            tensor: of the evaluation. A constant has fixed axes, a parameter axes of its own.
            statistics: whether a buffer may move, as those of batch norm do.
        """
        name = self.name_of(tensor)
        if name is not None:
            if name not in self.parameters and not statistics:
                self.pin_held(name, "it is a buffer that is used as a constant")
            return self._resolved(self.axes_of_held(name))
        self.settle(tensor)
        held = self._axes.get(id(tensor))
        if held is not None:
            if len(held[1]) == tensor.dim():
                return self._resolved(held[1])
            self.pin(held[1], "its shape was changed in place")
        for axes in self.memory.axes_of(tensor):
            self.pin(axes, "it is read through a view that no torch function made")
        for name in self.memory.of(tensor):
            if name in self.named:
                self.pin_held(name, "it is read through a view that no torch function made")
        form = self.variables.copies if self.is_uniform(tensor) else fixed
        return tuple(form(size) for size in tensor.shape)

    def axes_of_held(self, name: str) -> Axes:
        """The axes of a parameter or buffer, of variables of its own at first."""
        if name not in self.held_axes:
            self.held_axes[name] = tuple(self.variables.fresh(size) for size in self.named[name].shape)
            self.contexts.append(self.held_axes[name])
        return self.held_axes[name]

    def pin_held(self, name: str, reason: str) -> None:
        """Nothing acts on a parameter or buffer."""
        self.pinned.setdefault(name, reason)
        self.pin(self.axes_of_held(name), f"{name} stays: {reason}")

    def pin(self, axes: Iterable[Axis], reason: str) -> None:
        """Nothing acts on these axes."""
        self.variables.reduce(axes, Level.PINNED, reason)

    def pin_for(self, axes: Iterable[Axis], func: Callable[..., Any]) -> None:
        """Nothing acts on these axes, because a function without a rule reads them."""
        self.pin(axes, f"it enters {called(func)}, through which no group element is moved")

    def hold(self, tensor: Tensor, axes: Axes) -> None:
        """Set the axes of a tensor."""
        self._axes[id(tensor)] = (tensor, axes)
        if any(True for _ in factors_in(axes)):
            self.contexts.append(axes)
            self.scopes.add(axes)  # type: ignore[arg-type]
            self.memory.note(tensor, axes)

    def put_off(self, tensor: Tensor, later: Later) -> None:
        """Decide the axes of a tensor when it is read."""
        later.tensor = tensor
        self._later[id(tensor)] = later
        self.memory.note(tensor, self.axes(later.form.of))

    def settle(self, tensor: Tensor) -> None:
        """Decide the axes of a tensor, if they were put off."""
        later = self._later.pop(id(tensor), None)
        if later is not None:
            self.hold(tensor, later.settle())

    def pinned_like(self, of: Tensor, result: Tensor) -> Axes:
        """Fixed axes of a result, by which all axes of the tensor that it is computed from are pinned."""
        self.pin(self.axes(of), "it is read as complex numbers")
        return tuple(fixed(size) for size in result.shape)

    def form(self, tensor: Any) -> Any:
        """The form of a tensor whose axes are put off, else ``None``."""
        later = self._later.get(id(tensor))
        if later is not None and isinstance(later.form, Mixture) and not later.form.holds:
            self.settle(tensor)
            return None
        return None if later is None else later.form

    def folds(self, tensor: Any) -> bool:
        """Whether the tensor is a weight that is folded, so that it multiplies by one."""
        name = self.name_of(tensor) if isinstance(tensor, Tensor) else None
        if name is None or name not in self.parameters:
            return False
        self.multipliers[name] = None
        if name not in self.foldable:
            return False
        self.folded[name] = None
        self.pin_held(name, "it is folded into other weights")
        return True

    def held(self, tensor: Tensor) -> bool:
        """Whether the tensor has axes on which something acts."""
        return id(tensor) in self._axes or id(tensor) in self._later or self.name_of(tensor) is not None

    def axes_at(self, tensor: Tensor, all_views: bool = False) -> list[Axes]:
        """The tensor's axes; all those in its memory if it has none of its own or if ``all_views``."""
        self.settle(tensor)
        if id(tensor) in self._axes and not all_views:
            return [self.axes(tensor)]
        return self.memory.axes_of(tensor)

    def note_uniform(self, tensor: Tensor) -> None:
        """The tensor was made of one value."""
        if not tensor.is_inference():
            self._uniform[id(tensor)] = (tensor, tensor._version)

    def is_uniform(self, tensor: Tensor) -> bool:
        """Whether the tensor was made of one value and not written to since, also by no other name of its memory."""
        made = self._uniform.get(id(tensor))
        if made is None or tensor.is_inference() or tensor._version != made[1]:
            return False
        return not tensor.numel() or bool((tensor == tensor.flatten()[0]).all())

    def forget_tensors(self) -> None:
        """Release the tensors of an evaluation; constraints are kept."""
        self.memory.axes.clear()
        self._axes.clear()
        self._later.clear()
        self._uniform.clear()

    def _resolved(self, axes: Axes) -> Axes:
        return tuple(self.variables.resolve(axis) for axis in axes)
