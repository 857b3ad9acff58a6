"""Import of torchvision, which all other code takes from here."""

from __future__ import annotations

from types import ModuleType

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []  # a schema exists as long as the object that defined it


def torchvision() -> ModuleType:
    """``torchvision``, imported on first use, even if its compiled operators do not load.

    The wheel on PyPI is compiled against CUDA. With a CPU-only torch its operators are absent, and the import fails
    because it attaches shape rules to ``nms`` and ``qnms``. The suite calls neither, so that it is sufficient to define
    their schemas. If the operators load, the first import succeeds and nothing is defined.
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
