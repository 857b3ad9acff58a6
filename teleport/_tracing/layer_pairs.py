"""Which linear layer feeds which through one activation and nothing else: read off one evaluation of the loss.

Group actions on a pair of layers ``U s(V X)`` need to know both weights, the activation between them and the lower
layer's inputs, and that nothing else reads a weight or the hidden value. As in ``_tracing/layer_tracer.py``, layers are
recognised where they compute, at the call of a torch function, and what is not understood belongs to no pair.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from teleport._errors import UnsupportedModel
from teleport._tracing.activations import IDENTITY, Activation, activation_of
from teleport._tracing.functions import called
from teleport._tracing.layers import Block, Layer
from teleport._tracing.linear_uses import LinearUse, view_of
from teleport._tracing.ownership import Owners, distinct_elements, keeps_layout, storage_of, tensors_in
from teleport._tracing.unseen_reads import UnseenReads

RESHAPES = {"reshape", "view", "flatten", "squeeze", "unsqueeze", "unflatten", "contiguous", "view_as", "reshape_as"}
"""Functions that keep each row of features whole and in order where the last axis stays as long as it was."""

FACTS = {"size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "is_floating_point", "__len__"}
"""Methods that tell of a tensor's form and not of its values."""


@dataclass(frozen=True)
class Pair:
    """Adjacent layers: ``upper(activation(lower(inputs)))`` on one batch.

    Attributes:
        lower, upper: each weight is a whole parameter and is used once; a ``bias`` of the lower layer is a parameter
            that is used with it only (``None`` where there is none). The upper layer's ``bias`` may be ``None`` for
            one that is no such parameter; it has no part in an action on the pair.
        activation: what stands between them, applied to each element.
        inputs: of the lower layer, ``[positions, fan_in]``, detached, without the 1 of a bias.
        follows: the number of the pair whose upper layer is this one's lower layer, or ``None``.
    """

    lower: Layer
    activation: Activation
    upper: Layer
    inputs: Tensor
    follows: int | None


@dataclass(frozen=True)
class LayerPairs:
    """All adjacent pairs in the order of use, and why the parameters in ``unpaired`` are the lower layer of none."""

    pairs: list[Pair]
    unpaired: dict[str, str]


def trace_layer_pairs(evaluate: Callable[[], Any], named_parameters: Mapping[str, nn.Parameter]) -> LayerPairs:
    """Evaluate the loss of a batch once and tell which layers are adjacent.

    Args:
        evaluate: computes the loss, of a model in evaluation mode; anything that it computes is seen.
        named_parameters: the model's parameters; those that require no gradient are taken as constants.

    Raises:
        UnsupportedModel: there is no pair; the sentence names the first layer that is in none, and why.
    """
    watch = _Watch({name: p for name, p in named_parameters.items() if p.requires_grad})
    with torch.enable_grad(), watch.reads, watch:
        evaluate()
    chains = watch.result()
    if not chains.pairs:
        why = next((f"'{name}' stands alone: {reason}" for name, reason in chains.unpaired.items()), "it has none")
        raise UnsupportedModel(f"the model has no two linear layers that are joined by one activation alone; {why}")
    return chains


@dataclass
class _Use:
    """One use of a linear layer."""

    layer: Layer
    inputs: Tensor
    joint: tuple[int, Activation] | None  # the use that feeds it, and through what
    readers: int = 0  # functions that read its output, or what an activation made of it
    left: str = ""  # why it feeds no other layer alone


@dataclass
class _Value:
    """A tensor that is the output of a use, or its activation; held, so that no other takes its identity."""

    tensor: Tensor
    use: int
    activation: Activation | None


class _Watch(TorchFunctionMode):
    """Follows the output of each linear layer, and sees every function that a parameter enters."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.parameters = parameters
        self.owners = Owners(parameters)
        self.reads = UnseenReads(self.owners)
        self.uses: list[_Use] = []
        self.values: dict[int, _Value] = {}
        self.seen: dict[str, None] = {}  # weights, and other parameters that are no bias, in the order of use
        self.used: set[str] = set()
        self.unpaired = dict.fromkeys(self.owners.shared(), "its memory is another parameter's too")

    def __torch_function__(  # the mode itself is off in here
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.reads.paused:
            return func(*args, **kwargs)
        given = Counter(name for tensor in tensors_in((args, kwargs)) for name in self.owners.of(tensor))
        with self.reads.pause():  # before the call, which may overwrite its arguments
            use = self._linear_use(func, args, kwargs) if given else None
            joint = self._joint(use.source) if use is not None else None
            inputs = _rows(use) if use is not None else None
        with self.reads.frame(given) as read:
            result = func(*args, **kwargs)
        with self.reads.pause():
            if use is not None and inputs is not None and isinstance(result, Tensor):
                self._note_use(use, inputs, joint, result, given)
            else:
                for name in (name for name in given if name in read):
                    self._note_stranger(name, func)
                self._follow(func, args, kwargs, result)
        return result

    def result(self) -> LayerPairs:
        """The pairs, and why the other layers are in none."""
        for name, operation in self.reads.unseen.items():
            self.unpaired.setdefault(name, f"{operation} reads it where no torch function shows it")
        pairs: list[Pair] = []
        number_of: dict[str, int] = {}  # a pair's number by its upper layer
        feeding: set[str] = set()
        for use in self.uses:
            if use.joint is None:
                continue
            below = self.uses[use.joint[0]]
            if below.left or self._kept_apart(below.layer) or self._kept_apart(use.layer, with_bias=False):
                continue
            feeding.add(below.layer.name)
            pair = Pair(below.layer, use.joint[1], use.layer, below.inputs, number_of.get(below.layer.name))
            number_of[use.layer.name] = len(pairs)
            pairs.append(pair)
        return LayerPairs(pairs, self._reasons(feeding))

    def _reasons(self, feeding: set[str]) -> dict[str, str]:
        """Why each layer that is not ``feeding`` another one is not."""
        left = {use.layer.name: self._kept_apart(use.layer) or use.left for use in self.uses}
        return {
            name: self.unpaired.get(name)
            or left.get(name)
            or "the layer that it feeds is no whole linear layer used once"
            for name in self.seen
            if name not in feeding
        }

    def _kept_apart(self, layer: Layer, with_bias: bool = True) -> str:
        """Why an action must not touch a layer, empty where it may."""
        blocks = layer.blocks if with_bias else [layer.weight]
        return next((self.unpaired[block.owner] for block in blocks if block.owner in self.unpaired), "")

    def _linear_use(self, func: Callable[..., Any], args: Any, kwargs: Any) -> LinearUse | None:
        """The call as the use of one whole weight on rows of features, ``None`` where it is none."""
        view = view_of(func)
        if view is None:
            return None
        try:
            inspect.signature(view).bind(*args, **kwargs)
        except TypeError:
            return None
        uses = view(*args, **kwargs)
        if len(uses) != 1 or uses[0].kind != "linear":
            return None
        names, source = self.owners.of(uses[0].weight), uses[0].source
        if len(names) != 1 or self.owners.of(source) or source.layout != torch.strided or storage_of(source) is None:
            return None
        parameter = self.parameters[names[0]]
        whole = uses[0].weight.numel() == parameter.numel() and distinct_elements(uses[0].weight)
        return uses[0] if whole and keeps_layout(parameter) and not parameter.is_complex() else None

    def _joint(self, source: Tensor) -> tuple[int, Activation] | None:
        """What feeds a layer with the inputs ``source``."""
        value = self.values.get(id(source))
        return None if value is None else (value.use, value.activation or IDENTITY)

    def _note_use(
        self, use: LinearUse, inputs: Tensor, joint: tuple[int, Activation] | None, result: Tensor, given: Counter[str]
    ) -> None:
        """Take in a layer's use; its output is followed from here."""
        (name,) = self.owners.of(use.weight)
        owner = self.owners.of(use.bias)
        bias = None
        if use.bias is not None and len(owner) == 1 and use.bias.numel() == self.parameters[owner[0]].numel():
            bias = Block.of(use.bias, owner[0], self.parameters[owner[0]])
        weight = Block.of(use.weight, name, self.parameters[name])
        layer = Layer(name, "linear", weight, bias, 1, use.transposed, inputs.shape[1] + (bias is not None))
        noted = _Use(layer, inputs, joint)
        if use.bias is not None and bias is None:
            noted.left = "its bias is no whole parameter that is trained"
        for block in layer.blocks:
            if block.owner in self.used:
                self.unpaired.setdefault(block.owner, "it is used more than once")
            self.used.add(block.owner)
        for other in given.keys() - {block.owner for block in layer.blocks}:
            self._note_stranger(other, F.linear)
        self.seen.setdefault(name)
        if joint is not None:
            self._note_reader(joint[0], F.linear)
        self.uses.append(noted)
        self.values[id(result)] = _Value(result, len(self.uses) - 1, None)

    def _note_stranger(self, name: str, func: Callable[..., Any]) -> None:
        """A parameter enters a function that is no use of a linear layer."""
        self.seen.setdefault(name)
        self.unpaired.setdefault(name, f"it enters {called(func)} other than as a linear layer's weight")

    def _note_reader(self, number: int, func: Callable[..., Any]) -> None:
        use = self.uses[number]
        use.readers += 1
        if use.readers > 1:
            use.left = use.left or f"its output, or what an activation made of it, is read twice (by {called(func)})"

    def _follow(self, func: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        """Follow the values that enter a function to what it makes of them."""
        values = [self.values[id(t)] for t in tensors_in((args, kwargs)) if id(t) in self.values]
        if not values or _asks_for_form(func, result):
            return
        for value in values:
            self._note_reader(value.use, func)
        value = values[0]
        first = bool(args) and args[0] is value.tensor and len(values) == 1 and isinstance(result, Tensor)
        made = activation_of(func, args, kwargs)
        if first and _passes(func, args, kwargs, value.tensor, result):
            made = value.activation
        elif not first or made is None or value.activation is not None:
            for use in (self.uses[value.use] for value in values):
                use.left = use.left or f"its output enters {called(func)}, no elementwise activation that is known"
            return
        self.uses[value.use].readers -= 1  # what was made is read in its place
        self.values[id(result)] = _Value(result, value.use, made)


def _rows(use: LinearUse) -> Tensor:
    """All input vectors of a use, ``[positions, fan_in]``."""
    return torch.cat(list(use.rows()), dim=1)[0].clone()


def _asks_for_form(func: Callable[..., Any], result: Any) -> bool:
    """Whether a call told of a tensor's form only (``x.shape``, ``x.dim()``)."""
    return getattr(func, "__name__", "") in {*FACTS, "__get__"} and not any(True for _ in tensors_in(result))


def _passes(func: Callable[..., Any], args: Any, kwargs: Any, before: Tensor, after: Tensor) -> bool:
    """Whether a call left each row of features as it was."""
    name = getattr(func, "__name__", "")
    if "dropout" in name:
        return kwargs.get("training", args[2] if len(args) > 2 else True) is False
    return name in RESHAPES and before.numel() == after.numel() and before.shape[-1:] == after.shape[-1:]
