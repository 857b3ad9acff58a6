"""Initialisation of a model's linear and convolution layers."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from experiments.errors import UserError, one_of

# name -> (weight, gain) -> None, in place
INITIALISERS: dict[str, Callable[[Tensor, float], object]] = {
    # He et al. 2015, equation 10: variance 2 / fan_in
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu"),
    # Glorot and Bengio 2010: variance gain^2 * 2 / (fan_in + fan_out)
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain),
    "gaussian": lambda weight, gain: nn.init.normal_(weight, std=gain),
}


def initialise(model: nn.Module, init: str = "default", gain: float = 1.0) -> None:
    """Draw new weights for all linear and convolution layers and set their biases to zero, in place.

    ``default`` keeps PyTorch's initialisation. Norm layers, embeddings and bare parameters are never changed. Random
    numbers come from the global generator.

    Args:
        model: the model.
        init: ``default`` or one of ``INITIALISERS``.
        gain: the gain of ``xavier``, the standard deviation of ``gaussian``; not used by ``kaiming``.

    Raises:
        UserError: the name is unknown, or the gain is not above 0.
    """
    if init == "default":
        return
    if init not in INITIALISERS:
        raise one_of("model.init", init, ["default", *INITIALISERS])
    if gain <= 0:
        raise UserError(f"model.init_gain takes a number above 0, got {gain}")
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            INITIALISERS[init](module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
