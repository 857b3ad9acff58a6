"""The state of an unfinished run on disk, so that a killed run ends bit-identical to an unbroken one."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from experiments import files
from experiments.errors import UserError
from experiments.run.records import Records
from teleport._change_of_basis.loading import load_state
from teleport._files import tensor_file
from teleport._files.tensor_file import InvalidFile

SECTIONS = {"model", "optimizer", "plateau", "records", "random"}


def write_tensors(path: Path, content: Any) -> None:
    """Write tensors and plain values with a checksum; the file appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with files.writing_whole(path) as file:
        tensor_file.write_to(file, content)


def save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, plateau: ReduceLROnPlateau | None, records: Records
) -> None:
    """Write everything that the rest of the run depends on; the file appears whole or not at all."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "plateau": plateau.state_dict() if plateau else None,
        "records": asdict(records),
        "random": _random_state(),
    }
    write_tensors(path, state)


def load(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, plateau: ReduceLROnPlateau | None
) -> tuple[nn.Module, Records]:
    """Restore model, optimizer, scheduler and random generators.

    Returns:
        The model, in its teleported form if the run had rewritten it, and the rows so far.

    Raises:
        UserError: the file is damaged or of another model; model and optimizer are as they were.
    """
    try:
        state = tensor_file.read(path).value
        if not isinstance(state, dict) or set(state) != SECTIONS:
            raise InvalidFile("is no checkpoint")
        records = Records.of(state["records"])
        _check_optimizer(state["optimizer"], optimizer)
        if (state["plateau"] is not None) != (plateau is not None):
            raise InvalidFile("is of another schedule of learning rates")
        now = _random_state()
        try:
            _set_random_state(state["random"])
            model, _ = load_state(model, state["model"])
            optimizer.load_state_dict(state["optimizer"])
            if plateau:
                plateau.load_state_dict(state["plateau"])
        except BaseException:
            _set_random_state(now)
            raise
    except Exception as error:  # whatever a file that is whole but of another structure leads to
        why = f"{path}' {error}" if isinstance(error, InvalidFile) else f"{path}' is of other code"
        raise UserError(f"the checkpoint '{why}; delete it and the run starts from its beginning") from error
    return model, records


def _check_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check that a state is one of such an optimizer over such parameters.

    Raises:
        InvalidFile: it is not.
    """
    groups = optimizer.param_groups
    held = state.get("param_groups") if isinstance(state, dict) else None
    if not isinstance(held, list) or [set(group) for group in held] != [set(group) for group in groups]:
        raise InvalidFile("is of another optimizer")
    for group, own in zip(held, groups, strict=True):
        if len(group["params"]) != len(own["params"]):
            raise InvalidFile("is of an optimizer of other parameters")
        for number, parameter in zip(group["params"], own["params"], strict=True):
            for name, value in state["state"].get(number, {}).items():
                if isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape != parameter.shape:
                    raise InvalidFile(f"has '{name}' of a parameter in another shape")
                if not isinstance(value, torch.Tensor | int | float | None):
                    raise InvalidFile(f"has no tensor '{name}' of a parameter")


def _random_state() -> dict[str, Any]:
    """The states of the global generators, as plain values and tensors."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global generator is what is meant
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
