"""The one place that imports torchvision."""

from __future__ import annotations

from types import ModuleType

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []  # a schema lives as long as the object that defined it


def torchvision() -> ModuleType:
    """``torchvision``, imported on first use, also where its compiled operators do not load.

    The wheel on PyPI is compiled against CUDA. Beside a CPU-only torch its operators are absent, and the import ends
    because it attaches shape rules to ``nms`` and ``qnms``. Nothing here calls either, so their schemas are enough.
    Where the operators load, the first import succeeds and nothing is defined.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                library.define(name + _SIGNATURE)
        _libraries.append(library)
        import torchvision
    return torchvision
