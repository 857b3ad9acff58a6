"""Finds the quiver of a network: which channels may carry which change of basis, read off one evaluation.

Every torch function is watched. A tensor that scales with units carries a label (:mod:`teleport.labels`), the rules
(:mod:`teleport.rules`) say what a function makes of labels and what must be equal for that, and :mod:`teleport.units`
solves for what is left free. A function that has no rule pins what enters it to 1, with the reason, so that what is not
understood never changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from teleport.labels import constant, core
from teleport.outputs import tensors_returned
from teleport.ownership import Owners, distinct_elements, storage_of, tensors_in
from teleport.quiver import Quiver, Site
from teleport.rules import ACTIVATIONS, Call, Weight, labels_of_result
from teleport.scales import Scales
from teleport.teleported import function_name
from teleport.units import Units
from teleport.watch import Seen, Watcher, called


def find_quiver(
    run: Callable[[], Any],
    named_parameters: Mapping[str, nn.Parameter],
    in_place: bool = True,
    frozen_stay: bool = True,
) -> Quiver:
    """Watch one evaluation and tell which channels may change their basis.

    Args:
        run: evaluates the model once, however it likes. Every tensor that it returns is an output and carries 1, as
            every tensor does that it does not make from parameters.
        named_parameters: those that may be scaled; what else the evaluation reads is constant.
        in_place: whether the changed parameters alone must keep the function. Otherwise activations may be called in
            their teleported form, and the quiver's ``sites`` say which.
        frozen_stay: whether parameters that require no gradient stay, and with them the units they scale with.
    """
    return watch([run], named_parameters, in_place, frozen_stay, "it is an output")


def watch(
    runs: Iterable[Callable[[], Any]],
    named_parameters: Mapping[str, nn.Parameter],
    in_place: bool,
    frozen_stay: bool,
    output: str,
) -> Quiver:
    """The quiver that several evaluations of one network allow together; ``output`` is why an output carries 1."""
    tracker = Tracker(named_parameters, in_place, frozen_stay)
    for run in runs:
        with tracker.reads, tracker:
            result = run()
        tracker.end_of_run(result, output)
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

    def note(self, tensor: Tensor, label: Tensor) -> None:
        """Let a tensor's memory be labelled."""
        self.labels.setdefault(f"#{storage_of(tensor)}", []).append(label)

    def labels_of(self, tensor: Tensor) -> list[Tensor]:
        """All labels in the tensor's memory."""
        return self.labels.get(f"#{storage_of(tensor)}", [])


class Tracker(Watcher):
    """Carries labels through the torch functions of an evaluation."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], in_place: bool, frozen_stay: bool) -> None:
        self.memory = _Memory(parameters)
        super().__init__(self.memory)
        self.parameters = parameters
        self.in_place = in_place
        self.units = Units()
        self.scales = Scales(parameters, self.units)
        self.sites: list[Site] = []
        self.calls: dict[str, int] = {}  # of the last evaluation
        self._names = {parameter: name for name, parameter in parameters.items()}
        self._calls: Counter[Callable[..., Any]] = Counter()
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}  # the tensors are held so that no other takes their id
        for name, parameter in parameters.items():
            if frozen_stay and not parameter.requires_grad:
                self.scales.fix(name, "it requires no gradient")
            if parameter.is_complex():
                self.scales.fix(name, "it is complex")
            if not distinct_elements(parameter):
                self.scales.fix(name, "some of its elements are one in memory")
        for name in self.memory.shared():
            self.scales.fix(name, "its memory is another parameter's too")

    def __torch_function__(  # the mode itself is off in here
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """As the watcher's, with the calls of activations counted, also those through which no label goes."""
        if func in ACTIVATIONS:
            self._calls[func] += 1
        return super().__torch_function__(func, types, args, kwargs)

    def before(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The arguments' versions, which tell whether the call changed one."""
        return _versions(tensors_in((args, kwargs)))

    def after(self, seen: Seen) -> None:
        """Label the result of a call, or pin what entered it."""
        with torch._C._DisableTorchDispatch():  # the reads need not see what is computed of labels
            self._judge(seen)

    def _judge(self, seen: Seen) -> None:
        call = Call(self, seen.func, seen.result)
        labels = labels_of_result(call, seen.args, seen.kwargs)
        explained = Counter[str]() if labels is None else call.explained
        for name in seen.read:
            if name in self.parameters and seen.given[name] > explained[name]:
                self.scales.fix(name, f"it enters {called(seen.func)} other than as a layer's weight")
        entered = list(tensors_in((seen.args, seen.kwargs)))
        made = list(tensors_in(seen.result))
        if labels is not None and self._keeps_arguments(entered, made, labels):
            for tensor, label in zip(made, labels, strict=True):
                if bool(core(label).any()) or self.memory.labels_of(tensor):
                    self._hold(tensor, label)
        elif made or any(name not in self.parameters for name in seen.read):
            changed = seen.known != _versions(entered)
            for label in [*(labels or []), *(label for each in entered for label in self._labels_at(each, changed))]:
                self.pin(label, seen.func)

    def _keeps_arguments(self, entered: list[Tensor], made: list[Tensor], labels: list[Tensor]) -> bool:
        """Whether the call did not change what an argument scales with, which other views of it would not know."""
        arguments = {id(tensor) for tensor in entered}
        return all(
            id(tensor) not in arguments or torch.equal(self.label(tensor), label)
            for tensor, label in zip(made, labels, strict=True)
        )

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
            if bool(core(label).any()):
                self.sites.append(Site(self._calls[func] - 1, func, core(label), homogeneous))
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

    def _hold(self, tensor: Tensor, label: Tensor) -> None:
        self._labels[id(tensor)] = (tensor, label)
        self.memory.note(tensor, label)

    def _labels_at(self, tensor: Tensor, all_views: bool = False) -> list[Tensor]:
        """The tensor's label; all those in its memory where it has none of its own, or ``all_views`` are asked for."""
        if self.held(tensor) and not all_views:
            return [self.label(tensor)]
        return self.memory.labels_of(tensor)

    def end_of_run(self, result: Any, output: str) -> None:
        """Judge what is returned and what was read out of sight, and let go of the evaluation's tensors."""
        for tensor in tensors_returned(result):
            for label in self._labels_at(tensor):
                self.units.pin(label, output)
            for name in self.memory.of(tensor):
                if name in self.parameters:
                    self.scales.fix(name, output)
        for name, operation in self.reads.unseen.items():
            reason = f"{operation} reads it where no torch function shows it"
            if name in self.parameters:
                self.scales.fix(name, reason)
            for label in self.memory.labels.get(name, []):
                self.units.pin(label, reason)
        self.reads.unseen.clear()
        self.memory.labels.clear()
        self._labels.clear()
        self.calls = {function_name(func): count for func, count in self._calls.items()}
        self._calls.clear()

    def result(self) -> Quiver:
        """Classes, with what each parameter does at their factors."""
        quiver = self.scales.solve(self.sites)
        quiver.calls = self.calls
        return quiver


def _versions(tensors: Iterable[Tensor]) -> list[int]:
    """How often each has been changed in place; -1 where torch does not count it."""
    return [-1 if tensor.is_inference() else tensor._version for tensor in tensors]
