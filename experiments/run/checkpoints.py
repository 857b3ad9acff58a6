"""The state of an unfinished run on disk, so that a killed run ends bit-identical to an unbroken one."""

from __future__ import annotations

import io
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from experiments import files
from experiments.errors import UserError
from experiments.run.records import Records
from teleport._change_of_basis.teleported import like_state


def to_bytes(content: Any) -> bytes:
    """``torch.save`` into memory: a full disk then raises the ``OSError`` of an ordinary write."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


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
    files.write_bytes(path, to_bytes(state))


def load(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, plateau: ReduceLROnPlateau | None
) -> tuple[nn.Module, Records]:
    """Restore model, optimizer, scheduler and random generators.

    Returns:
        The model, in its teleported form if the run had rewritten it, and the rows so far.

    Raises:
        UserError: the file is damaged or of another model.
    """
    try:
        with ZipFile(path) as archive:  # torch does not verify its own checksums
            if archive.testzip() is not None:
                raise BadZipFile
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = like_state(model, state["model"])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if plateau:
            plateau.load_state_dict(state["plateau"])
        records = Records(**state["records"])
        _set_random_state(state["random"])
    except files.DAMAGED as error:
        raise UserError(
            f"the checkpoint '{path}' is damaged or of other code; delete it and the run starts from its beginning"
        ) from error
    return model, records


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
