"""torchvision for tests of the library, which must not import ``experiments``."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []  # a schema lives as long as its library


def torchvision() -> ModuleType:
    """``torchvision``; skips the test if it is not installed.

    The wheel on PyPI is compiled against CUDA. With a CPU-only torch its operators do not load and the import fails at
    ``nms`` and ``qnms``, which no model here calls: declaring their schemas is enough.
    """
    try:
        return pytest.importorskip("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SCHEMA)
    _libraries.append(library)
    import torchvision

    return torchvision
