"""Which weights a loss uses as linear maps, on which inputs: read off one evaluation of the loss.

Every call of a torch function is seen as it happens. A call with a view (:mod:`teleport.views`) says which parameters
multiply which inputs; a parameter that enters any other function, or that is never seen, stays where it is, with the
reason. What is not understood is thus never moved.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from teleport.representation import Representation
from teleport.views import LinearUse, as_matrix, from_matrix, view_of

Key = tuple[str, torch.Size, tuple[int, ...], int, int, bool]
"""What makes two uses one layer: the parameter, where the block lies in it, and how it is read as a matrix."""


@dataclass(frozen=True)
class Block:
    """A parameter, or the part of one that a layer uses (the query rows of a packed projection)."""

    parameter: nn.Parameter
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int  # from the parameter's first element

    @classmethod
    def of(cls, tensor: Tensor, parameter: nn.Parameter) -> Block:
        """Where ``tensor``, the parameter or a view of it, lies in it."""
        return cls(parameter, tensor.shape, tensor.stride(), int(tensor.storage_offset() - parameter.storage_offset()))

    def within(self, whole: Tensor) -> Tensor:
        """The same part of ``whole``, a tensor with the parameter's shape and strides."""
        return whole.as_strided(self.shape, self.stride, whole.storage_offset() + self.offset)


@dataclass
class Layer:
    """A weight that is used as a linear map only, and what its inputs span."""

    name: str
    kind: str
    weight: Block
    bias: Block | None
    groups: int
    transposed: bool
    dimension: int  # of an input vector, the 1 of a folded bias included
    representation: Representation | None = None  # None where the layer provably cannot move
    waiting: list[LinearUse] = field(default_factory=list)  # its only use so far, on inputs that no parameter decides

    @property
    def blocks(self) -> list[Block]:
        """The weight's block, and the bias's where one is folded in."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def gather(self, tensors: Mapping[nn.Parameter, Tensor]) -> Tensor:
        """The layer's matrices ``[groups, out, dimension]`` out of one tensor a parameter."""
        matrix = as_matrix(self.weight.within(tensors[self.weight.parameter]), self.groups, self.transposed)
        if self.bias is None:
            return matrix
        bias = self.bias.within(tensors[self.bias.parameter])
        return torch.cat([matrix, bias.reshape(self.groups, -1, 1)], dim=2)

    def scatter(self, matrix: Tensor, tensors: Mapping[nn.Parameter, Tensor]) -> None:
        """Write matrices ``[groups, out, dimension]`` where :meth:`gather` reads them."""
        if self.bias is not None:
            bias = self.bias.within(tensors[self.bias.parameter])
            bias.copy_(matrix[..., -1].reshape(bias.shape))
            matrix = matrix[..., :-1]
        weight = self.weight.within(tensors[self.weight.parameter])
        weight.copy_(from_matrix(matrix, weight.shape, self.transposed))


@dataclass
class Capture:
    """What one evaluation, or several, showed: the layers that may move, and why other parameters stay.

    ``layers`` and ``pinned`` go by the parameter's name, with the part in brackets where it is not the whole.
    """

    layers: dict[str, Layer]
    pinned: dict[str, str]


def capture(
    evaluate: Callable[[Any], Any],
    batches: Iterable[Any],
    named_parameters: Mapping[str, nn.Parameter],
    shared_objective: bool,
) -> Capture:
    """Evaluate the loss on each of ``batches`` and tell what its layers' inputs span together.

    Args:
        evaluate: computes the loss of a batch; anything that it computes is seen.
        batches: the constraint batches.
        named_parameters: the model's parameters; those that require no gradient are taken as constants.
        shared_objective: the objective is evaluated on this very batch, so that a layer whose only inputs depend on
            no parameter cannot move at the exact null space and needs no representation: the objective depends on its
            weight through ``weight @ inputs`` alone.
    """
    recorder = _Recorder({name: p for name, p in named_parameters.items() if p.requires_grad}, shared_objective)
    for batch in batches:
        with recorder, torch.enable_grad():
            evaluate(batch)
        recorder.end_of_batch()
    return recorder.result()


class _Recorder(TorchFunctionMode):
    """Sees every torch function that a trainable parameter, or a view of one, enters."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], shared_objective: bool) -> None:
        super().__init__()
        self.parameters = parameters
        self.shared_objective = shared_objective
        self.pinned: dict[str, str] = {}
        self.layers: dict[Key, Layer] = {}
        self.bias_users: dict[Hashable, set[Key]] = {}  # a bias block and the layers that add it
        self.sources: dict[Hashable, tuple[Tensor, Representation]] = {}  # this batch's; keeps the tensor's id taken
        self.merged: dict[tuple[int, int], Representation] = {}
        self.owners: dict[int, list[str]] = {}
        for name, parameter in parameters.items():
            if parameter.is_complex() or not _dense(parameter):
                self.pinned[name] = "its storage is complex or has gaps, which no view understands"
            storage = _storage(parameter)
            if storage is not None:
                self.owners.setdefault(storage, []).append(name)

    def __torch_function__(  # the mode itself is off in here
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        touched = {name for tensor in _tensors((args, kwargs)) if (name := self.owner(tensor)) is not None}
        result = func(*args, **kwargs)
        if touched and self._computes(result):
            self._note(func, args, kwargs, touched)
        return result

    def owner(self, tensor: Tensor | None) -> str | None:
        """The name of the trainable parameter that ``tensor`` is, or is a view of."""
        storage = None if tensor is None else _storage(tensor)
        if tensor is None or storage is None or storage not in self.owners:
            return None
        names = self.owners[storage]
        if len(names) == 1:
            return names[0]
        at = tensor.storage_offset()  # several parameters in one storage, as in a flattened recurrent layer
        starts = {name: self.parameters[name].storage_offset() for name in names}
        return max((name for name in names if starts[name] <= at), key=starts.__getitem__, default=None)

    def _computes(self, result: Any) -> bool:
        """Whether a call made new values, rather than a view of a parameter or a fact about it."""
        return any(_storage(tensor) not in self.owners for tensor in _tensors(result))

    def _note(self, func: Callable[..., Any], args: Any, kwargs: Any, touched: set[str]) -> None:
        view = view_of(func)
        with torch.no_grad():
            uses = view(*args, **kwargs) if view is not None else []
        for use in uses:
            name = self.owner(use.weight)
            if name is not None:
                self._use(name, use)
                touched = touched - {name, self.owner(use.bias)}
        called = resolve_name(func) or getattr(func, "__name__", str(func))
        for name in touched:
            self.pinned.setdefault(name, f"it enters {called} other than as a linear map")

    def _use(self, name: str, use: LinearUse) -> None:
        weight = Block.of(use.weight, self.parameters[name])
        bias_name = self.owner(use.bias)
        bias = Block.of(use.bias, self.parameters[bias_name]) if bias_name and use.bias is not None else None
        key: Key = (name, weight.shape, weight.stride, weight.offset, use.groups, use.transposed)
        if key not in self.layers:
            dimension = as_matrix(use.weight, use.groups, use.transposed).shape[2] + (bias is not None)
            self.layers[key] = Layer(
                _label(name, weight), use.kind, weight, bias, use.groups, use.transposed, dimension
            )
        elif self.layers[key].bias != bias:
            self.pinned.setdefault(name, "it is used with and without a bias, or with different ones")
        if bias is not None and bias_name is not None:
            users = self.bias_users.setdefault((bias_name, bias.shape, bias.offset), set())
            users.add(key)
            if len(users) > 1:
                for shared in users:
                    self.pinned.setdefault(shared[0], "it shares its bias with another weight")
        if name not in self.pinned:
            self._represent(self.layers[key], use)

    def _represent(self, layer: Layer, use: LinearUse) -> None:
        first = layer.representation is None and not layer.waiting
        if first and self.shared_objective and not use.source.requires_grad:
            layer.waiting.append(use)
            return
        for each in [*layer.waiting, use]:
            layer.representation = self._joined(layer.representation, self._inputs(layer, each))
        layer.waiting.clear()

    def _inputs(self, layer: Layer, use: LinearUse) -> Representation:
        """The representation of one use's inputs, shared by the layers that see the same ones."""
        ones = layer.bias is not None
        key = (id(use.source), use.source._version, use.key, ones)
        if key not in self.sources:
            made = Representation(layer.dimension, layer.groups, use.source.dtype, ones)
            for rows in use.rows():
                made.update(rows)
            self.sources[key] = (use.source, made)
        return self.sources[key][1]

    def _joined(self, held: Representation | None, new: Representation) -> Representation:
        """Both together; layers that held the same and see the same go on sharing one."""
        if held is None:
            return new
        pair = (id(held), id(new))
        if pair not in self.merged:
            self.merged[pair] = held.merged(new)
        return self.merged[pair]

    def end_of_batch(self) -> None:
        """Let go of the batch's inputs."""
        self.sources.clear()
        self.merged.clear()

    def result(self) -> Capture:
        """The layers that may move and the parameters that stay, each with its reason."""
        self._pin_overlaps()
        layers: dict[str, Layer] = {}
        seen: set[str] = set()
        for (name, *_), layer in self.layers.items():
            bias_name = None if layer.bias is None else self.owner(layer.bias.parameter)
            seen |= {name} if bias_name is None else {name, bias_name}
            if bias_name is not None and bias_name in self.pinned:
                self.pinned.setdefault(name, f"its bias stays: {self.pinned[bias_name]}")
            if name not in self.pinned:
                layers[layer.name] = layer
            elif bias_name is not None:
                self.pinned.setdefault(bias_name, f"its weight stays: {self.pinned[name]}")
        for name in self.parameters:
            if name not in seen:
                self.pinned.setdefault(name, "no use of it was seen: it is unused, scripted or compiled")
        return Capture(layers, self.pinned)

    def _pin_overlaps(self) -> None:
        """A weight used through parts that overlap (tied, and one use transposed) would need both constraints."""
        parts: dict[str, list[Layer]] = {}
        for (name, *_), layer in self.layers.items():
            parts.setdefault(name, []).append(layer)
        for name, layers in parts.items():
            if len(layers) > 1:
                count = torch.zeros_like(self.parameters[name], dtype=torch.int32)
                for layer in layers:
                    layer.weight.within(count).add_(1)
                if int(count.max()) > 1:
                    self.pinned.setdefault(name, "it is used as a linear map in several ways at once (tied weights)")


def _label(name: str, block: Block) -> str:
    """The parameter's name, with its rows where a block is a part of it."""
    if block.shape.numel() == block.parameter.numel():
        return name
    row = block.parameter.stride(0) or 1
    start = block.offset // row
    return f"{name}[{start}:{start + block.shape[0]}]"


def _storage(tensor: Tensor) -> int | None:
    """Identifies a tensor's memory; ``None`` for tensors that have none of their own."""
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):
        return None


def _dense(parameter: Tensor) -> bool:
    """Whether a tensor like it has the same strides, so that a block lies at the same place in both."""
    return torch.empty_like(parameter).stride() == parameter.stride()


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
