"""A ``state_dict`` into a model: checked by name, shape, type and value, then loaded whole or not at all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.nn.parameter import is_lazy

from teleport._files.tensor_file import InvalidFile

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers put before the names of a model's tensors: ``DataParallel`` and its kin, ``torch.compile``, and
modules with the network as an attribute, as of trainers."""

_EXTRA = "_extra_state"


def state_of(value: Any) -> dict[str, Any]:
    """``value`` if it is a ``state_dict``: names with tensors, or with the extra states of modules.

    Raises:
        InvalidFile: it is not.
    """
    if isinstance(value, Mapping) and all(map(_is_entry, value.keys(), value.values())):
        return value  # type: ignore[return-value]
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Mapping) and inner and all(map(_is_entry, inner.keys(), inner.values())):
                raise InvalidFile(f"holds no state dict, but one below {key!r}; save that alone")
    raise InvalidFile("holds no state dict")


def _is_entry(key: Any, value: Any) -> bool:
    return isinstance(key, str) and (isinstance(value, Tensor) or key.rpartition(".")[2] == _EXTRA)


def forms(state: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """A state without the first 0, 1, ... of the prefixes that all its names carry, each with what was removed."""
    found, removed = [("", _copied(state))], ""
    while True:
        stripped = _copied(found[-1][1])
        prefix = next((each for each in PREFIXES if all(name.startswith(each) for name in stripped)), None)
        if not stripped or prefix is None:
            return found
        consume_prefix_in_state_dict_if_present(stripped, prefix)
        removed += prefix
        found.append((removed, stripped))


def with_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """A state with ``prefix`` before each name."""
    renamed: Any = OrderedDict((prefix + name, value) for name, value in state.items())
    if (versions := getattr(state, "_metadata", None)) is not None:
        renamed._metadata = OrderedDict((f"{prefix}{name}".rstrip("."), value) for name, value in versions.items())
    return renamed  # type: ignore[no-any-return]


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that keeps the versions of the modules."""
    copied: Any = OrderedDict(state)
    if (versions := getattr(state, "_metadata", None)) is not None:
        copied._metadata = OrderedDict(versions)
    return copied  # type: ignore[no-any-return]


def check_tensors(model: nn.Module, state: Mapping[str, Any], *, finite: bool) -> None:
    """Check the tensors of a state against those of a model with the same names; nothing is changed.

    Args:
        model: the model.
        state: the state; names that only one of them has are left to :func:`load_whole`.
        finite: whether values that are not finite are refused where those of the model are finite.

    Raises:
        InvalidFile: a tensor has another shape, a type that cannot be kept (complex in real, fractions in integers),
            values that are too large for the model's type, or that are not finite.
    """
    for name, own in model.state_dict().items():
        value = state.get(name)
        if not isinstance(own, Tensor) or value is None:
            continue
        if not isinstance(value, Tensor):
            raise InvalidFile(f"has no tensor at '{name}'")
        if is_lazy(own):
            continue
        if value.shape != own.shape:
            raise InvalidFile(f"has '{name}' of shape {list(value.shape)}, where the model has {list(own.shape)}")
        if not torch.can_cast(value.dtype, own.dtype):
            raise InvalidFile(f"has '{name}' of type {_short(value.dtype)}, where the model has {_short(own.dtype)}")
        _check_values(name, value, own, finite)


def _check_values(name: str, value: Tensor, own: Tensor, finite: bool) -> None:
    if not (value.is_floating_point() or value.is_complex()) or value.layout != torch.strided or value.is_quantized:
        return
    if own.is_meta or value.is_meta:
        return
    bad = ~_finite(value)
    if bool(bad.any()):
        if finite and bool(_finite(own).all()):
            raise InvalidFile(f"has {int(bad.sum())} of {bad.numel()} values of '{name}' that are not finite")
    elif value.dtype != own.dtype and not bool(_finite(value.to(own.dtype)).all()):
        raise InvalidFile(f"has values of '{name}' that are too large for the model's {_short(own.dtype)}")


def _finite(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:  # float8, of which torch has no such test
        tensor = tensor.float()
    return tensor.isfinite()


class SavedModel:
    """The tensors and the extra states of a model, to restore what was loaded in part."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._tensors = {id(tensor): (tensor, tensor.detach().clone()) for tensor in _tensors(model)}
        state = model.state_dict()
        self._extra = {name: value for name, value in state.items() if name.rpartition(".")[2] == _EXTRA}

    def restore(self) -> None:
        """Write them back."""
        with torch.no_grad():
            for tensor, values in self._tensors.values():
                tensor.copy_(values)
        for name, value in self._extra.items():
            self._model.get_submodule(name.rpartition(".")[0]).set_extra_state(value)


def load_whole(model: nn.Module, state: Mapping[str, Any], before: SavedModel | None = None) -> None:
    """Load a state into a model. After an exception the model's tensors and extra states are what they were.

    Args:
        model: the model.
        state: by the model's names.
        before: of the model, if the caller has it.

    Raises:
        InvalidFile: the model has names that the state lacks, or the reverse.
    """
    before = before or SavedModel(model)
    try:
        # Names are not compared directly, since a module may take older files that lack some.
        missing, unknown = model.load_state_dict(state, strict=False)
        if missing:
            raise InvalidFile(f"lacks '{missing[0]}'{_and_more(missing)}, which the model has")
        if unknown:
            raise InvalidFile(f"has '{unknown[0]}'{_and_more(unknown)}, which the model lacks")
    except BaseException:
        before.restore()
        raise


def _tensors(model: nn.Module) -> list[Tensor]:
    return [each for each in (*model.parameters(), *model.buffers()) if not is_lazy(each)]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
