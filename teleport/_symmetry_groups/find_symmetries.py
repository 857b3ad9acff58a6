"""Finds the symmetries of a model, read off one traced evaluation for the scalings and one for all other groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from teleport._arguments import check_call
from teleport._engine.held_tensors import HeldTensors
from teleport._processes.group import ALONE, Group
from teleport._quiver.find_quiver import trace_quiver
from teleport._quiver.quiver import Quiver
from teleport._symmetry_groups.axis import Axis, Factor, Level, factors_in
from teleport._symmetry_groups.axis_state import AxisState
from teleport._symmetry_groups.axis_tracer import AxisTracer
from teleport._symmetry_groups.families import companions_of
from teleport._symmetry_groups.folding import foldable_weights
from teleport._symmetry_groups.symmetries import GROUPS, Symmetries, SymmetryVertex, matrix_dimension
from teleport._tracing.caches import clear_caches
from teleport._tracing.evaluations import Modes, in_modes, leaves_out, modes_of, reached_modules
from teleport._tracing.outputs import Forward, call_model, outputs_of
from teleport._tracing.preconditions import check_model, check_tensors
from teleport._tracing.undisturbed import ModelState, undisturbed
from teleport._tracing.value_reads import value_reads_of

FACTORED = (Level.SCALED_TURN, Level.GENERAL)
"""Groups that hold factors on their units, which are not counted again."""

ONE_FACTOR = "another factor of the same axis carries matrices"


def find_symmetries(
    model: nn.Module, batch: Any, forward: Forward | None = None, *, fold_norms: bool = False
) -> Symmetries:
    """The groups that change the weights of a model and not its function, for inputs of any kind.

    They are read off evaluations of the model, by one rule per torch function, and not off its class. What is not
    understood stays, and ``Symmetries.pinned`` and the ``reasons`` of a vertex name it. A symmetry holds for all inputs
    that take the same branches of the model's code as ``batch``; ``Symmetries.value_reads`` names where the code reads
    values on which a branch may depend.

    Args:
        model: any module; it is as before afterwards.
        batch: shows the model's structure. The channels that a part which it does not reach may read stay.
        forward: ``forward(model, batch)``, one evaluation; by default as of ``teleport.ChangeOfBasis``.
        fold_norms: whether weights that multiply units (of norms, of layer scales) may be folded into the linear maps
            beside them, so that rotations pass. ``Symmetries.folding()`` does so; elements hold after it.

    Raises:
        UnsupportedModel: the model's parameters have no values, or are not all in this process.
    """
    return symmetries_by(None, model, batch, forward or call_model, fold_norms)


def symmetries_by(
    tracer: AxisTracer | None, model: nn.Module, batch: Any, evaluate: Forward, fold_norms: bool = False
) -> Symmetries:
    """As :func:`find_symmetries`, with a tracer of the caller's that sees the evaluations."""
    check_call(model, [batch], evaluate, None, False)
    check_model(model)
    check_tensors([batch])
    modes = modes_of(model)

    def traced(state: ModelState) -> Symmetries:
        clear_caches(model, state, lambda: state.evaluate(lambda: outputs_of(model, batch, evaluate)))
        run = partial(state.evaluate, partial(evaluate, model, batch))
        return trace_symmetries(model, [run], modes, [batch], tracer, fold_norms)

    return undisturbed(model, traced)


def trace_symmetries(
    model: nn.Module,
    runs: Sequence[Callable[[], Any]],
    modes: Modes,
    batches: Sequence[Any] = (),
    tracer: AxisTracer | None = None,
    fold_norms: bool = False,
    whole: Mapping[str, nn.Parameter] | None = None,
    group: Group = ALONE,
) -> Symmetries:
    """The symmetries of a model.

    Args:
        model: in a state in which it can be evaluated again.
        runs: each evaluates the model once. The first is traced, the others while there are parameters that none has
            read.
        modes: of training; if the first run leaves out modules in training mode, one in these modes is traced, too.
        batches: of the runs; reads of their values are told.
        tracer: that has seen nothing yet; by default one of its own.
        fold_norms: as of :func:`find_symmetries`.
        whole: the parameters by name as tracers see them, if they are not those of the model.
        group: of processes that may hold rows of the parameters, and make the same runs then.
    """
    named = dict(model.named_parameters()) if whole is None else dict(whole)
    values = value_reads_of(model, batches)
    with reached_modules() as reached:
        quiver = trace_quiver(runs[:1], named, True, True, "it is an output", runs[1:], values, group)
    first = [runs[0]]
    if group.anywhere(leaves_out(reached, modes)):
        first.append(in_modes(model, runs[0], modes))
        quiver = trace_quiver(first, named, True, True, "it is an output", runs[1:], values, group)
    held = HeldTensors.of(model, group)
    foldable, refused = foldable_weights(quiver, named, held) if fold_norms else ([], {})
    tracer = tracer or AxisTracer(named, persistent_buffers(model))
    tracer.state.foldable = frozenset(foldable)
    with torch.no_grad():
        for run in first:
            tracer.trace_run(run)
        for run in runs[1:]:
            if not group.anywhere(bool(tracer.unread)):
                break
            tracer.trace_run(run)
    tracer.pin_unreached()
    found = symmetries_of(tracer.state, quiver)
    for name in refused.keys() & tracer.state.multipliers.keys():
        found.pinned[name] = f"not folded: {refused[name]}"
    return found


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The floating-point buffers that a ``state_dict`` holds, by name."""
    found = {}
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                found[f"{path}.{name}" if path else name] = buffer
    return found


def symmetries_of(state: AxisState, quiver: Quiver) -> Symmetries:
    """The symmetries that follow from what the evaluations have shown."""
    variables = state.variables
    axes = {name: tuple(variables.resolve(axis) for axis in held) for name, held in state.held_axes.items()}
    for held in axes.values():
        for axis in held:
            _one_matrix_per_axis(state, axis)
    companions = companions_of(variables, state.contexts)
    found = {f.variable: f.size for held in axes.values() for f in factors_in(held)}
    acting = {each: variables.level[each] for each in found if variables.level[each] > Level.PINNED}
    owned = {variable: tuple(companions.get(variable, ())) for variable in acting}
    claimed: dict[int, set[int]] = {}
    places: dict[int, list[tuple[str, int, Factor]]] = {}
    for name, place, factor, span in _places(axes):
        places.setdefault(factor.variable, []).append((name, place, factor))
        if factor.variable in acting and name in quiver.scaled:
            claimed.setdefault(factor.variable, set()).update(_classes(quiver, name, place, factor.dual, span))
    inverse = quiver.inverse.tolist()
    vertices = []
    counted: set[int] = set()
    for variable in sorted(acting, key=lambda each: (-acting[each], each)):
        own = {_representative(inverse, each) for each in claimed.get(variable, set())} - counted
        counted |= own
        copies = math.prod(found[each] for each in owned[variable])
        vertices.append(_vertex(state, places[variable], variable, found[variable], copies, len(own)))
    matrices = set()
    for variable, level in acting.items():
        if level in FACTORED:
            matrices |= {_representative(inverse, each) for each in claimed.get(variable, set())}
    sides = [side for scaled in quiver.scaled.values() for side in (scaled.output_class, scaled.input_class)]
    free = {_representative(inverse, each) for side in sides for each in set(side.flatten().tolist()) - {0}}
    order = {name: number for number, name in enumerate(state.named)}
    vertices.sort(key=lambda each: order[each.name.partition("[")[0]])
    return Symmetries(
        vertices,
        _pinned(state, axes, acting, quiver),
        quiver,
        axes,
        acting,
        owned,
        len(free - matrices),
        tuple(state.folded),
    )


def _one_matrix_per_axis(state: AxisState, axis: Axis) -> None:
    """Of several factors of one axis, the innermost alone carries matrices, so that no two overlap."""
    variables = state.variables
    for segment in axis:
        large = [factor for factor in factors_in([(segment,)]) if variables.level[factor.variable].matrices]
        for factor in large[:-1]:
            variables.reduce([((factor,),)], Level.PERMUTATION, ONE_FACTOR)


def _places(axes: Any) -> Iterator[tuple[str, int, Any, tuple[int, int]]]:
    """The factors of all parameters: name, axis, factor and the span of its segment."""
    for name, held in axes.items():
        for place, axis in enumerate(held):
            start = 0
            for segment in axis:
                length = math.prod(factor.size for factor in segment)
                for factor in segment:
                    if factor.variable >= 0:
                        yield name, place, factor, (start, length)
                start += length


def _classes(quiver: Quiver, name: str, place: int, dual: bool, span: tuple[int, int]) -> set[int]:
    """The factor classes of the units of a parameter's axis."""
    scaled = quiver.scaled[name]
    side = scaled.input_class if dual else scaled.output_class
    dims = scaled.parameter.dim()
    side = side.reshape((1,) * (dims - side.dim()) + side.shape)
    if side.shape[place] == 1:
        return set()
    return set(side.narrow(place, *span).flatten().tolist()) - {0}


def classes_of_units(axes: Any, quiver: Quiver, variable: int) -> set[int]:
    """The factor classes of the units on which a variable acts, without class 0.

    Args:
        axes: of parameters and buffers, by name.
        quiver: of the same model.
        variable: of the axes.
    """
    found: set[int] = set()
    for name, place, factor, span in _places(axes):
        if factor.variable == variable and name in quiver.scaled:
            found |= _classes(quiver, name, place, factor.dual, span)
    return found


def _representative(inverse: Sequence[int], of: int) -> int:
    """Of a class and that of its inverse, the first."""
    return min(of, inverse[of]) if inverse[of] >= 0 else of


def _vertex(
    state: AxisState,
    places: Sequence[tuple[str, int, Factor]],
    variable: int,
    units: int,
    copies: int,
    scalings: int,
) -> SymmetryVertex:
    sides: dict[str, list[str]] = {}
    names: list[tuple[bool, str]] = []
    for name, place, factor in places:
        sides.setdefault(name, []).append(f"axis {place} ({'input' if factor.dual else 'output'})")
        names.append((factor.dual, f"{name}[axis {place}]"))
    first = next((name for dual, name in names if not dual), names[0][1])
    level = state.variables.level[variable]
    vertex = SymmetryVertex(
        first,
        GROUPS[level],
        units,
        copies,
        scalings,
        0,
        {name: ", ".join(each) for name, each in sides.items()},
        tuple(state.variables.reasons[variable]),
    )
    dimension = matrix_dimension(vertex) + (0 if level in FACTORED else scalings)
    return SymmetryVertex(**{**vertex.__dict__, "dimension": dimension})


def _pinned(state: AxisState, axes: Any, acting: Any, quiver: Quiver) -> dict[str, str]:
    """Why parameters stay, on which nothing acts but factors."""
    pinned = {}
    for name in state.parameters:
        factors = list(factors_in(axes.get(name, ())))
        if any(factor.variable in acting for factor in factors):
            continue
        reasons = [reason for factor in factors for reason in state.variables.reasons[factor.variable][-1:]]
        why = "; ".join(dict.fromkeys(reasons)) or quiver.reasons.get(name, "it has one unit")
        why = state.pinned.get(name, why)
        pinned[name] = f"but for factors: {why}" if name in quiver.scaled else why
    return pinned
