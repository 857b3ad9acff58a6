"""The accelerator where torch says by an exception that there is none."""

from __future__ import annotations

import pytest
import torch

from teleport import NullSpace
from teleport._tracing.accelerator import current_accelerator
from tests.teleport.methods import CLASSES


def without(*arguments: object) -> torch.device:
    raise RuntimeError("Cannot access accelerator device when none is available.")


def test_the_accelerator_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("xpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: device)
    assert current_accelerator() is device


def test_without_an_accelerator_methods_run_as_torch_2_6_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", without)
    assert current_accelerator() is None
    model, batches = CLASSES.make()
    assert NullSpace()(model, batches, CLASSES.loss_fn).accepted
