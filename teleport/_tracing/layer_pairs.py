"""Traces the adjacent layers of a loss: which linear layer feeds which through one activation and nothing else.

Input: an evaluation of the loss, and the model's parameters. Output: :class:`LayerPairs`. Group actions on a pair of
layers ``U s(V X)`` (Zhao et al. 2022, 2024) need both weights, the activation between them and the lower layer's
inputs, and that nothing else reads a weight or the hidden value. As in ``_tracing/layer_tracer.py``, layers are
recognised at the call of a torch function. A parameter with a use that is not understood is in no pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teleport._errors import UnsupportedModel
from teleport._tracing.activations import IDENTITY, ElementwiseActivation, activation_of
from teleport._tracing.function_tracer import FunctionTracer, TracedCall
from teleport._tracing.functions import called
from teleport._tracing.layers import Block, Layer
from teleport._tracing.linear_use import LinearUse
from teleport._tracing.linear_uses import linear_uses
from teleport._tracing.lone_biases import bias_of
from teleport._tracing.ownership import Owners, distinct_elements, keeps_layout, storage_of, tensors_in
from teleport._tracing.reasons import SHARED_STORAGE, other_use

RESHAPES = {"reshape", "view", "flatten", "squeeze", "unsqueeze", "unflatten", "contiguous", "view_as", "reshape_as"}
"""Functions that keep each row of features whole and in order if the last axis keeps its length."""

METADATA = {"size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "is_floating_point", "__len__"}
"""Methods that return a tensor's metadata, not its values."""


@dataclass(frozen=True)
class LayerPair:
    """Adjacent layers: ``upper(activation(lower(inputs)))`` on one batch.

    Attributes:
        lower, upper: each weight is a whole parameter and is used once; a ``bias`` of the lower layer is a whole
            parameter that is used with it only (``None`` if there is none). The upper layer's ``bias`` may be ``None``
            for one that is no such parameter; it has no part in an action on the pair.
        activation: the function between them, applied to each element.
        inputs: of the lower layer, ``[positions, fan_in]``, detached, without the 1 of a bias.
        follows: the index of the pair whose upper layer is this one's lower layer, or ``None``.
    """

    lower: Layer
    activation: ElementwiseActivation
    upper: Layer
    inputs: Tensor
    follows: int | None


@dataclass(frozen=True)
class LayerPairs:
    """All adjacent pairs in the order of use; ``unpaired`` tells why a parameter is in no pair as the lower layer."""

    pairs: list[LayerPair]
    unpaired: dict[str, str]


def trace_layer_pairs(evaluate: Callable[[], Any], named_parameters: Mapping[str, nn.Parameter]) -> LayerPairs:
    """Evaluate the loss of a batch once, and find the layers that are adjacent.

    Args:
        evaluate: computes the loss, of a model in evaluation mode; everything that it computes is traced.
        named_parameters: the model's parameters; those that require no gradient are taken as constants.

    Raises:
        UnsupportedModel: there is no pair; the message names the first parameter that is in none, and why.
    """
    tracer = PairTracer({name: p for name, p in named_parameters.items() if p.requires_grad})
    with torch.enable_grad():
        tracer.trace(evaluate)
    traced = tracer.result()
    if not traced.pairs:
        reasons = (f"'{name}' is the lower layer of no pair: {reason}" for name, reason in traced.unpaired.items())
        reason = next(reasons, "none of its parameters was used")
        raise UnsupportedModel(f"the model has no two linear layers that are joined by one activation alone; {reason}")
    return traced


@dataclass
class _LayerUse:
    """One use of a linear layer.

    Attributes:
        layer, inputs: as of the pair that it may be the lower layer of.
        below: the index of the use whose output feeds it, and the activation between; ``None`` if no layer does.
        reads: how many functions read its output, or the activation of it.
        reason: why it is the lower layer of no pair, as far as its own output tells.
    """

    layer: Layer
    inputs: Tensor
    below: tuple[int, ElementwiseActivation] | None
    reads: int = 0
    reason: str = ""


@dataclass(frozen=True)
class _HiddenValue:
    """The output of a use, or its activation; it holds the tensor, so that its id is not given to another."""

    tensor: Tensor
    use: int
    activation: ElementwiseActivation | None


@dataclass(frozen=True)
class _Prepared:
    """A call that uses a linear layer, as it was before the call."""

    use: LinearUse
    inputs: Tensor
    below: tuple[int, ElementwiseActivation] | None


class PairTracer(FunctionTracer):
    """Traces the uses of all parameters, and follows the output of each linear layer."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(Owners(parameters))
        self.parameters = parameters
        self._uses: list[_LayerUse] = []
        self._values: dict[int, _HiddenValue] = {}  # by the id of the tensor
        self._order: dict[str, None] = {}  # weights, and other parameters that are no bias, in the order of use
        self._used: set[str] = set()  # parameters that are a weight or bias
        self._unpaired = dict.fromkeys(self.owners.shared(), SHARED_STORAGE)

    def concerns(self, args: tuple[Any, ...], kwargs: dict[str, Any], given: Counter[str]) -> bool:
        """Besides the calls with a parameter, those that a followed value enters."""
        return bool(given) or any(id(tensor) in self._values for tensor in tensors_in((args, kwargs)))

    def before(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Prepared | None:
        """The use of a linear layer, with its inputs, which the call may overwrite."""
        use = self._linear_use(func, args, kwargs)
        if use is None:
            return None
        value = self._values.get(id(use.source))
        below = None if value is None else (value.use, value.activation or IDENTITY)
        rows = list(use.rows())  # mostly one; under autocast on the CPU halves cannot be concatenated
        return _Prepared(use, (rows[0].clone() if len(rows) == 1 else torch.cat(rows, dim=1))[0], below)

    def after(self, call: TracedCall) -> None:
        """Record the use of a linear layer; of other calls, the parameters and hidden values that they read."""
        if call.prepared is not None and isinstance(call.result, Tensor):
            self._record(call)
            return
        for name in call.given:
            if name in call.read:
                self._record_other_use(name, call)
        self._follow(call)

    def _linear_use(self, func: Callable[..., Any], args: Any, kwargs: Any) -> LinearUse | None:
        """The call as the use of one whole weight on rows of features; ``None`` if it is no such use."""
        uses = linear_uses(func, args, kwargs)
        if len(uses) != 1 or uses[0].kind != "linear" or uses[0].groups != 1:
            return None
        names, source = self.owners.of(uses[0].weight), uses[0].source
        if len(names) != 1 or self.owners.of(source) or source.layout != torch.strided or storage_of(source) is None:
            return None
        parameter = self.parameters[names[0]]
        whole = uses[0].weight.numel() == parameter.numel() and distinct_elements(uses[0].weight)
        return uses[0] if whole and keeps_layout(parameter) and not parameter.is_complex() else None

    def _record(self, call: TracedCall) -> None:
        """Record a use of a linear layer, whose output is followed from here."""
        prepared: _Prepared = call.prepared
        use, below = prepared.use, prepared.below
        (name,) = self.owners.of(use.weight)
        bias = self._bias(use)
        layer = Layer.of(use, Block.of(use.weight, name, self.parameters[name]), bias)
        recorded = _LayerUse(layer, prepared.inputs, below)
        if use.bias is not None and bias is None:
            recorded.reason = "its bias is not a whole trainable parameter"
        for block in layer.blocks:
            if block.owner in self._used:
                self._unpaired.setdefault(block.owner, "it is used more than once")
            self._used.add(block.owner)
        for other in call.given.keys() - {block.owner for block in layer.blocks}:
            self._record_other_use(other, call)
        self._order.setdefault(name)
        if below is not None:
            self._record_read(below[0], call.func)
        self._uses.append(recorded)
        self._values[id(call.result)] = _HiddenValue(call.result, len(self._uses) - 1, None)

    def _bias(self, use: LinearUse) -> Block | None:
        """The bias, if it is a whole parameter."""
        names = self.owners.of(use.bias)
        if use.bias is None or len(names) != 1 or use.bias.numel() != self.parameters[names[0]].numel():
            return None
        return Block.of(use.bias, names[0], self.parameters[names[0]])

    def _record_other_use(self, name: str, call: TracedCall) -> None:
        """A function reads a parameter, and not as a linear layer."""
        self._order.setdefault(name)
        bias = bias_of(call, name, self.owners)
        self._unpaired.setdefault(name, bias or other_use(call.func, "the weight or bias of a linear layer"))

    def _record_read(self, index: int, func: Callable[..., Any]) -> None:
        """A function reads the output of a use, or the activation of it."""
        use = self._uses[index]
        use.reads += 1
        if use.reads > 1:
            use.reason = use.reason or f"its output, or its activation, is used twice (again by {called(func)})"

    def _follow(self, call: TracedCall) -> None:
        """Follow the hidden values among the arguments of a call to its result."""
        values = [self._values[id(t)] for t in tensors_in((call.args, call.kwargs)) if id(t) in self._values]
        if not values or _reads_metadata(call.func, call.result):
            return
        for value in values:
            self._record_read(value.use, call.func)
        value = values[0]
        alone = (
            len(values) == 1 and bool(call.args) and call.args[0] is value.tensor and isinstance(call.result, Tensor)
        )
        activation = activation_of(call.func, call.args, call.kwargs)
        if alone and _keeps_rows(call, value.tensor):
            activation = value.activation
        elif not alone or activation is None or value.activation is not None:
            problem = "a second activation" if alone and activation else "not a known elementwise activation"
            reason = f"its output is used by {called(call.func)}, which is {problem}"
            for use in (self._uses[value.use] for value in values):
                use.reason = use.reason or reason
            return
        self._uses[value.use].reads -= 1  # the result is read in its place
        self._values[id(call.result)] = _HiddenValue(call.result, value.use, activation)

    def result(self) -> LayerPairs:
        """The pairs, and why the other parameters are the lower layer of none."""
        for name, reason in self.unseen_reasons().items():
            self._unpaired.setdefault(name, reason)
        pairs: list[LayerPair] = []
        index_of: dict[str, int] = {}  # a pair's index by its upper layer
        paired: set[str] = set()
        for use in self._uses:
            if use.below is None:
                continue
            lower = self._uses[use.below[0]]
            if lower.reason or self._refusal(lower.layer.blocks) or self._refusal([use.layer.weight]):
                continue
            paired.add(lower.layer.name)
            index = index_of.get(lower.layer.name)
            index_of[use.layer.name] = len(pairs)
            pairs.append(LayerPair(lower.layer, use.below[1], use.layer, lower.inputs, index))
        return LayerPairs(pairs, {name: self._reason(name) for name in self._order if name not in paired})

    def _reason(self, name: str) -> str:
        """Why a parameter is the lower layer of no pair."""
        reasons = {use.layer.name: self._refusal(use.layer.blocks) or use.reason for use in self._uses}
        missing = "the layer above it is not a whole linear layer that is used once"
        return self._unpaired.get(name) or reasons.get(name) or missing

    def _refusal(self, blocks: list[Block]) -> str:
        """Why an action must not change a layer with these blocks, empty if it may."""
        return next((self._unpaired[block.owner] for block in blocks if block.owner in self._unpaired), "")


def _reads_metadata(func: Callable[..., Any], result: Any) -> bool:
    """Whether a call returned a tensor's metadata only (``x.shape``, ``x.dim()``)."""
    return getattr(func, "__name__", "") in {*METADATA, "__get__"} and not any(True for _ in tensors_in(result))


def _keeps_rows(call: TracedCall, before: Tensor) -> bool:
    """Whether a call left each row of features of ``before`` as it was."""
    name, after = getattr(call.func, "__name__", ""), call.result
    if "dropout" in name:
        return call.kwargs.get("training", call.args[2] if len(call.args) > 2 else True) is False
    return name in RESHAPES and before.numel() == after.numel() and before.shape[-1:] == after.shape[-1:]
