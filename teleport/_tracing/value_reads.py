"""Reads of a tensor's values by Python: what a branch of the model's code may depend on.

``bool(tensor)``, ``tensor.item()``, ``tensor.tolist()``, ``torch.equal`` and shapes that depend on values (``nonzero``,
a boolean index) lead out of what a tracer sees. What is found on an evaluation then holds for the answers that this
evaluation gave. Such reads are followed by memory below the torch functions, so that no function needs a rule: whatever
is computed from a parameter, or from the batch, depends on it; what is computed from shapes and constants alone does
not, and is not told.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef

from teleport._tracing.functions import called
from teleport._tracing.outputs import tensors_returned
from teleport._tracing.ownership import tensors_in

EXPORTS = {"numpy", "tolist", "data_ptr", "untyped_storage", "storage", "__array__", "__dlpack__", "share_memory_"}
"""Methods that export a tensor's memory, after which its use cannot be traced: they count as reads."""

_VALUES_OUT = EXPORTS - {"share_memory_"} | {"__reduce_ex__", "__repr__", "__format__", "apply_", "map_", "map2_"}
"""Methods that hand values to Python without an operation below the torch functions."""

_INTO_TENSORS = {"__getitem__", "__setitem__", "__deepcopy__", "tensor", "new_tensor", "as_tensor", "asarray"}
"""They read numbers (an index of one element) and put them into a tensor again."""

_FORM_ALONE = {
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided"),
}
"""Operations whose result depends on the shape of an argument and not on its values."""

_OF_FORM = ("sym_", "size", "stride", "numel", "dim", "is_same_size", "is_pinned", "is_contiguous", "storage_offset")
_NUMBERS = {"bool", "int", "float", "number", "Scalar"}

_BATCH, _PARAMETERS = 1, 2
_PLACES = tuple(str(Path(each).parent) + "/" for each in (torch.__file__, Path(__file__).parent))


@dataclass(frozen=True)
class ValueRead:
    """A place in the model's code that reads the value of a tensor.

    Attributes:
        operation: by which it reads, ``"torch.Tensor.item"``.
        of: ``"parameters"`` if the value depends on parameters, ``"batch"`` if on the batch alone.
        file, line, function: the innermost code outside of torch.
    """

    operation: str
    of: Literal["parameters", "batch"]
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        of = "parameters" if self.of == "parameters" else "the batch alone"
        place = f"{Path(self.file).name}:{self.line} ({self.function})"
        return f"{place} reads a value of {of} by {self.operation}: a branch may depend on it"


class ValueReads:
    """Follows which memory depends on parameters or on the batch, and collects the reads of its values.

    Args:
        moving: the tensors that a move may change: parameters that are trained, statistics of batch norms.
        model: whose arguments are the batch, too; ``None`` if it is not known.
        batches: of the evaluations.

    Attributes:
        found: the reads, each once.
    """

    def __init__(self, moving: Iterable[Tensor], model: nn.Module | None = None, batches: Iterable[Any] = ()) -> None:
        self.found: dict[ValueRead, None] = {}
        self._model = model
        self._sources = [(tensor, _PARAMETERS) for tensor in moving]
        self._sources += [(tensor, _BATCH) for tensor in tensors_returned(list(batches))]
        self._of: dict[Any, tuple[int, Any]] = {}  # storage -> what it depends on, and what keeps its identity
        self._function: Callable[..., Any] | None = None
        self._pending: list[tuple[str, int, bool]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around one evaluation."""
        for tensor, kind in self._sources:
            self._mark(tensor, kind)
        hook = None if self._model is None else self._model.register_forward_pre_hook(self._enter, with_kwargs=True)
        try:
            yield
        finally:
            if hook is not None:
                hook.remove()
            self._of.clear()

    def before(self, function: Callable[..., Any]) -> None:
        """A torch function is called."""
        self._function = function

    def after(self, function: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        """It returned."""
        name = getattr(function, "__name__", "")
        if name in _INTO_TENSORS:
            kind = self._kind_of((args, kwargs))
            for tensor in tensors_in((result, args)) if kind else ():
                self._mark(tensor, kind)
        elif name in _VALUES_OUT:
            self._tell(called(function), self._kind_of((args, kwargs)))
        for operation, kind, number in self._pending:
            if not (number and name in _INTO_TENSORS):
                self._tell(operation, kind)
        self._pending.clear()
        self._function = None

    def note(self, func: OpOverload[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        """An operation below the torch functions."""
        entered = list(tensors_in((args, kwargs)))
        kind = 0
        for tensor in entered:
            kind |= self._kind(tensor)
        if not kind:
            return
        name = func._schema.name.partition("::")[2]
        if name in _FORM_ALONE:
            return
        for tensor in tensors_in(result):
            self._mark(tensor, kind)
        if func._schema.is_mutable:
            for tensor in entered:
                self._mark(tensor, kind)
        if _leaves(func, name, args):
            told = str(func) if self._function is None else called(self._function)
            if self._function is None:
                self._tell(told, kind)
            else:
                self._pending.append((told, kind, torch.Tag.data_dependent_output in func.tags))

    def note_copy(self, source: Tensor, copy: Tensor) -> None:
        """A tensor holds the values of another one, which no operation that is seen has copied."""
        if kind := self._kind(source):
            self._mark(copy, kind)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        with torch._C.DisableTorchFunction():
            for tensor in tensors_returned([args, kwargs]):
                if not self._kind(tensor):
                    self._mark(tensor, _BATCH)

    def _tell(self, operation: str, kind: int) -> None:
        if kind:
            of: Literal["parameters", "batch"] = "parameters" if kind & _PARAMETERS else "batch"
            self.found.setdefault(ValueRead(operation, of, *_place()))

    def _kind_of(self, values: Any) -> int:
        kind = 0
        for tensor in tensors_in(values):
            kind |= self._kind(tensor)
        return kind

    def _kind(self, tensor: Tensor) -> int:
        known = self._of.get(_identity(tensor))
        return 0 if known is None else known[0]

    def _mark(self, tensor: Tensor, kind: int) -> None:
        identity = _identity(tensor)
        known = self._of.get(identity)
        if known is not None:
            self._of[identity] = (known[0] | kind, known[1])
        elif kind:
            whole = isinstance(identity, tuple)
            kept = tensor if whole else StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
            self._of[identity] = (kind, kept)


def value_reads_of(model: nn.Module, batches: Iterable[Any]) -> ValueReads:
    """For evaluations of a model: trained parameters and the statistics of batch norm may move."""
    moving: list[Tensor] = [each for each in model.parameters() if each.requires_grad]
    for module in model.modules():
        if "running_var" in module._buffers:
            moving += [each for each in (module.running_mean, module.running_var) if isinstance(each, Tensor)]
    return ValueReads(moving, model, batches)


def _identity(tensor: Tensor) -> Any:
    """Of a tensor's storage; of the tensor itself if it has none."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return ("tensor", id(tensor))


def _leaves(func: OpOverload[..., Any], name: str, args: Any) -> bool:
    """Whether an operation hands a value to Python, or makes a shape that depends on values."""
    if torch.Tag.data_dependent_output in func.tags:
        return True
    if name.startswith("_to_sparse"):
        return True
    if torch.Tag.dynamic_output_shape in func.tags:
        if name != "index":
            return True
        return any(each.dtype in (torch.bool, torch.uint8) for each in tensors_in(args[1]))
    numbers = any(str(each.type) in _NUMBERS for each in func._schema.returns)
    return numbers and not name.startswith(_OF_FORM)


def _place() -> tuple[str, int, str]:
    """File, line and function of the innermost code that is neither torch's nor this library's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PLACES):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
