"""The quiver of a model for changes of its parameters alone, or with teleported activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from teleport._change_of_basis.teleported import unwrapped
from teleport._errors import UnsupportedModel
from teleport._processes.group import ALONE, Group
from teleport._quiver.find_quiver import trace_quiver
from teleport._quiver.quiver import Quiver
from teleport._tracing.evaluations import Modes, first_call, in_modes, leaves_out, reached_modules
from teleport._tracing.functions import function_name
from teleport._tracing.value_reads import value_reads_of


def quiver_for(
    activations: str,
    model: nn.Module,
    evaluate: Callable[[], Any],
    modes: Modes,
    others: Sequence[Callable[[], Any]] = (),
    batches: Sequence[Any] = (),
    whole: Mapping[str, nn.Parameter] | None = None,
    group: Group = ALONE,
) -> Quiver:
    """The quiver of ``model`` as traced in ``evaluate``.

    If that does not reach modules that are trained, an evaluation in the ``modes`` of training is traced, too.
    ``others`` are traced while parameters are left that no evaluation has read.

    Args:
        activations: ``"keep"`` or ``"teleport"``.
        model, evaluate, modes, others: of the evaluations.
        batches: of all evaluations; reads of their values are told.
        whole: the parameters by name as tracers see them, if they are not those of the model.
        group: of processes that may hold rows of the parameters.

    Raises:
        ValueError: activations are to be teleported in a model that ``evaluate`` does not call.
        UnsupportedModel: or in one that calls others in training than in evaluation.
    """
    named = dict(unwrapped(model).named_parameters()) if whole is None else whole
    values = value_reads_of(unwrapped(model), batches)
    if activations == "keep":
        with reached_modules() as reached:
            quiver = trace_quiver([evaluate], named, True, True, "it is an output", others, values, group)
        if group.anywhere(leaves_out(reached, modes)):
            runs = [evaluate, in_modes(model, evaluate, modes)]
            quiver = trace_quiver(runs, named, True, True, "it is an output", others, values, group)
        return quiver
    run = first_call(unwrapped(model), evaluate, model)  # calls of functions beside the model's are not counted
    with reached_modules() as reached:
        quiver = trace_quiver([run], named, False, True, "it is an output", values=values)
    if not leaves_out(reached, modes):
        return quiver
    trained = trace_quiver([in_modes(model, run, modes)], named, False, True, "it is an output", values=values)
    functions = {function_name(site.function) for site in trained.sites}
    if any(trained.calls[name] != quiver.calls.get(name) for name in functions):
        raise UnsupportedModel(
            'activations="teleport" tells the calls of an activation apart by their number, and this model does '
            'not make the same ones in training as in evaluation; take "keep"'
        )
    return trained
