"""Which weights a loss uses as linear maps, on which inputs: read off one evaluation of the loss.

Every call of a torch function is seen as it happens. A call with a view (``_tracing/linear_uses.py``) says which parameters
multiply which inputs; a parameter that enters any other function, or is read where no function shows it, or is never
seen, stays where it is, with the reason. What is not understood is thus never moved.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from teleport._spaces.representation import Representation
from teleport._tracing.function_tracer import FunctionTracer, TracedCall
from teleport._tracing.functions import called
from teleport._tracing.layers import Block, Layer, RecordedUse
from teleport._tracing.linear_uses import LinearUse, as_matrix, view_of
from teleport._tracing.ownership import Owners, distinct_elements, keeps_layout, storage_of

T = TypeVar("T")

Key = tuple[Block, int, bool]
"""What makes two uses one layer: the weight's block, and how it is read as a matrix (groups, transposed)."""


@dataclass
class TracedLayers:
    """The result of tracing one evaluation, or several.

    Attributes:
        layers: those that may move, by the parameter's name, with the part in brackets if it is not the whole.
        representations: of the inputs of each of these layers; ``None`` if the layer provably cannot move.
        pinned: why the other parameters stay, by the parameter's name.
    """

    layers: dict[str, Layer]
    representations: dict[str, Representation | None]
    pinned: dict[str, str]


def capture(
    evaluate: Callable[[Any], Any],
    batches: Iterable[Any],
    named_parameters: Mapping[str, nn.Parameter],
    shared_objective: bool,
) -> TracedLayers:
    """Evaluate the loss on each of ``batches`` and tell what its layers' inputs span together.

    Args:
        evaluate: computes the loss of a batch; anything that it computes is seen.
        batches: the constraint batches.
        named_parameters: the model's parameters; those that require no gradient are taken as constants.
        shared_objective: the objective is evaluated on this very batch, so that a layer whose only inputs depend on
            no parameter cannot move at the exact null space and needs no representation: the objective depends on its
            weight through ``weight @ inputs`` alone.
    """
    recorder = LayerTracer(named_parameters, shared_objective)
    for batch in batches:
        recorder.watch(partial(evaluate, batch))
        recorder.take_in()
    return recorder.result()


class LayerTracer(FunctionTracer):
    """Sees every torch function that a trainable parameter, or a view of one, enters.

    Args:
        named_parameters, shared_objective: as of :func:`capture`.
        later: whether inputs are only held while an evaluation is watched, for :meth:`take_in` to look at. That costs
            the evaluation nothing, and only works out where they are not ``overwritten`` meanwhile.
    """

    def __init__(
        self, named_parameters: Mapping[str, nn.Parameter], shared_objective: bool, later: bool = False
    ) -> None:
        parameters = {name: held for name, held in named_parameters.items() if held.requires_grad}
        super().__init__(Owners(parameters))
        self.parameters = parameters
        self.shared_objective = shared_objective
        self.later = later
        self.pinned: dict[str, str] = {}
        self.layers: dict[Key, Layer] = {}
        self.representations: dict[Layer, Representation] = {}
        self.waiting: dict[Layer, RecordedUse] = {}  # the only use of a layer so far, on inputs that are constant
        self.inputs = _Inputs()
        self.held: list[tuple[Layer, RecordedUse]] = []
        for name in self.owners.shared():
            self.pinned[name] = "its memory is another parameter's too"
        for name, parameter in parameters.items():
            if parameter.is_complex() or not keeps_layout(parameter):
                self.pinned[name] = "its storage is complex or has gaps, which no view understands"

    def watch(self, evaluate: Callable[[], T]) -> T:
        """Evaluate, seeing what happens."""
        with torch.enable_grad(), self.reads, self:
            return evaluate()

    def before(self, func: Callable[..., Any], args: Any, kwargs: Any) -> list[LinearUse]:
        """The uses of a call, which may change its arguments or draw random numbers."""
        return [use for use in _uses(func, args, kwargs) if self._understood(use)]

    def after(self, seen: TracedCall) -> None:
        """Take in the uses of a call, and pin the parameters that it reads in another way."""
        uses: list[LinearUse] = seen.known
        explained = Counter(name for use in uses for name in self._use(use))
        entered = {name for use in uses for name in self.owners.of(use.source)}
        for name in seen.read:
            if name in entered or seen.given[name] > explained[name]:
                self.pinned.setdefault(name, f"it enters {called(seen.func)} other than as a linear map")

    def _understood(self, use: LinearUse) -> bool:
        """Whether a use is of one parameter's own elements, on inputs that can be taken apart."""
        names = self.owners.of(use.weight)
        return (
            len(names) == 1
            and use.weight.dim() >= 2
            and use.weight.dtype == self.parameters[names[0]].dtype
            and distinct_elements(use.weight)
            and use.source.layout == torch.strided
            and not use.source.is_inference()  # which does not tell whether it was overwritten
            and (storage_of(use.source) is not None or use.source.numel() == 0)
        )

    def _use(self, use: LinearUse) -> list[str]:
        """Take in one use; names the parameters that it explains."""
        (name,) = self.owners.of(use.weight)
        weight = Block.of(use.weight, name, self.parameters[name])
        bias = self._bias(use)
        matrix = as_matrix(use.weight.detach(), use.groups, use.transposed)
        layer = self.layers.setdefault(
            (weight, use.groups, use.transposed),
            Layer(
                weight.label, use.kind, weight, bias, use.groups, use.transposed, matrix.shape[2] + (bias is not None)
            ),
        )
        if layer.bias != bias:
            self.pinned.setdefault(name, "it is used with and without a bias, or with different ones")
            for other in filter(None, (layer.bias, bias)):
                self.pinned.setdefault(other.owner, f"its weight stays: {self.pinned[name]}")
        if self.later:
            self.held.append((layer, RecordedUse.now(use)))
        else:
            self._represent(layer, RecordedUse.now(use))
        return [name] if bias is None else [name, bias.owner]

    def _bias(self, use: LinearUse) -> Block | None:
        """The bias that moves with the weight: one element an output, all in one parameter."""
        names = self.owners.of(use.bias)
        outputs = as_matrix(use.weight.detach(), use.groups, use.transposed).shape[:2].numel()
        if use.bias is None or len(names) != 1 or use.bias.shape != (outputs,) or not distinct_elements(use.bias):
            return None
        return Block.of(use.bias, names[0], self.parameters[names[0]])

    def _represent(self, layer: Layer, seen: RecordedUse) -> None:
        if layer.weight.owner in self.pinned:
            return
        waiting = self.waiting.get(layer)
        if waiting is None and layer not in self.representations and self.shared_objective and seen.constant:
            self.waiting[layer] = seen
            return
        if waiting is not None and waiting.overwritten:
            self.pinned.setdefault(layer.weight.owner, "its inputs were overwritten before its second use was seen")
            return
        self.waiting.pop(layer, None)
        for each in filter(None, (waiting, seen)):
            held = self.representations.get(layer)
            self.representations[layer] = self.inputs.joined(held, self.inputs.of(layer, each))

    @property
    def overwritten(self) -> bool:
        """Whether inputs that are held are no longer what they were."""
        return any(seen.overwritten for _, seen in self.held)

    def take_in(self) -> None:
        """Look at the inputs that are held, and let go of the batch's."""
        for layer, seen in self.held:
            self._represent(layer, seen)
        self.held.clear()
        self.inputs = _Inputs()

    def result(self) -> TracedLayers:
        """The layers that may move and the parameters that stay, each with its reason.

        Representations are large: they are handed over, and the tracer keeps none.
        """
        for name, operation in self.reads.unseen.items():
            self.pinned[name] = f"{operation} reads it where no torch function shows it"
        self._pin_overlaps()
        self._keep_pairs_together()
        for name in self.parameters.keys() - {block.owner for layer in self.layers.values() for block in layer.blocks}:
            self.pinned.setdefault(name, "no use of it was seen")
        free = [layer for layer in self.layers.values() if layer.weight.owner not in self.pinned]
        representations, self.representations = self.representations, {}
        return TracedLayers(
            {layer.name: layer for layer in free},
            {layer.name: representations.get(layer) for layer in free},
            {name: self.pinned[name] for name in self.parameters if name in self.pinned},
        )

    def _keep_pairs_together(self) -> None:
        """A weight and its folded bias move together or not at all."""
        pairs = [(layer.weight.owner, layer.bias.owner) for layer in self.layers.values() if layer.bias is not None]
        known = -1
        while known < len(self.pinned):
            known = len(self.pinned)
            for weight, bias in pairs:
                if bias in self.pinned:
                    self.pinned.setdefault(weight, f"its bias stays: {self.pinned[bias]}")
                elif weight in self.pinned:
                    self.pinned.setdefault(bias, f"its weight stays: {self.pinned[weight]}")

    def _pin_overlaps(self) -> None:
        """A part of a parameter that several layers use (tied, and one use transposed) would need all constraints."""
        parts: dict[str, list[Block]] = {}
        for layer in self.layers.values():
            for block in layer.blocks:
                parts.setdefault(block.owner, []).append(block)
        for name, blocks in parts.items():
            if len(blocks) > 1:
                count = torch.zeros_like(self.parameters[name], dtype=torch.int32, requires_grad=False)
                for block in blocks:
                    block.within(count).add_(1)
                if int(count.max()) > 1:
                    self.pinned.setdefault(name, "layers share a part of it in different ways (a tied weight or bias)")


class _Inputs:
    """The representations of one batch's layer inputs, one for all layers that see the same."""

    def __init__(self) -> None:
        # The tensors and representations in the values are held so that no other takes their identity.
        self._of: dict[Hashable, tuple[Tensor, Representation]] = {}
        self._joined: dict[tuple[int, int], tuple[Representation, Representation, Representation]] = {}

    def of(self, layer: Layer, seen: RecordedUse) -> Representation:
        """The representation of one use's inputs."""
        use, ones = seen.use, layer.bias is not None
        key = (id(use.source), seen.version, use.key or use.kind, ones)
        if key not in self._of:
            made = Representation(layer.dimension, layer.groups, seen.dtype, ones, use.source.device)
            for rows in use.rows():
                made.update(rows.to(seen.dtype))
            self._of[key] = (use.source, made)
        return self._of[key][1]

    def joined(self, held: Representation | None, new: Representation) -> Representation:
        """Both together; layers that held the same and see the same go on sharing one."""
        if held is None:
            return new
        pair = (id(held), id(new))
        if pair not in self._joined:
            self._joined[pair] = (held, new, held.merged(new))
        return self._joined[pair][2]


def _uses(func: Callable[..., Any], args: Any, kwargs: Any) -> list[LinearUse]:
    """What the function's view makes of a call; nothing where an argument is none that the view knows."""
    view = view_of(func)
    if view is None:
        return []
    try:
        inspect.signature(view).bind(*args, **kwargs)
    except TypeError:
        return []
    return view(*args, **kwargs)
