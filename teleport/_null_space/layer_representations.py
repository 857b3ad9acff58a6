"""The representation of each layer's inputs, by the name of the layer's weight (Wu et al. 2025, equations 8 to 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from teleport._spaces.representation import Representation
from teleport._tracing.layer_tracer import TracedLayers, trace_layers
from teleport._tracing.preconditions import check_model
from teleport._tracing.undisturbed import ModelState, undisturbed


def representations(
    model: nn.Module, batches: Iterable[Any], loss_fn: Callable[[nn.Module, Any], Tensor]
) -> dict[str, Representation]:
    """The representation of each layer's inputs over all ``batches`` (Wu et al. 2025, equations 8 to 10).

    Args:
        model: any module; it is not changed.
        batches: what ``loss_fn`` takes, of this process.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.

    Returns:
        representations in the order in which the layers are used, by the name of the layer's weight. Parameters that
        are not the weight of a linear map, or that require no gradient, have none.
    """
    check_model(model)
    named = dict(model.named_parameters())

    def traced(state: ModelState) -> TracedLayers:
        def evaluate(batch: Any) -> Tensor:
            return state.evaluate(lambda: loss_fn(model, batch))

        return trace_layers(evaluate, batches, named, shared_objective=False)

    found = undisturbed(model, traced).representations
    return {name: each for name, each in found.items() if each is not None}
