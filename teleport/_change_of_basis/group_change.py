"""A change of basis by an element of the groups that ``find_symmetries`` finds: its settings, and what is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, Protocol, get_args

import torch
from torch import nn

from teleport._arguments import check_choice
from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.common_move import half_tolerance
from teleport._change_of_basis.group_event import GroupMove
from teleport._change_of_basis.group_value import GroupChange
from teleport._change_of_basis.report import GroupReport
from teleport._engine.contract import LossFn
from teleport._engine.held_tensors import HeldTensors
from teleport._engine.on_shards import ShardedModel
from teleport._engine.progress import Callback
from teleport._engine.sharded import with_whole_parameters
from teleport._processes.group import Group
from teleport._quiver.quiver import Quiver
from teleport._symmetry_groups.folding import folding_of, own_classes
from teleport._symmetry_groups.symmetries import Symmetries
from teleport._tracing.outputs import Forward, call_model
from teleport._tracing.preconditions import check_model
from teleport._tracing.replicas import is_sharded

GroupName = Literal["scaling", "permutation", "orthogonal", "general", "all"]
GROUPS = get_args(GroupName)

LEAST_SINGULAR_VALUE = 0.05
"""Of random matrices, so that they stay well conditioned at any range."""


class Settings(Protocol):
    """What a move takes from its ``ChangeOfBasis``."""

    group: GroupName
    range: float
    fold_norms: bool
    guard: Literal["transaction", "none"]
    tolerance: float
    generator: torch.Generator

    def sample(self, quiver: Quiver, generator: torch.Generator | None = None) -> BasisChange:
        """A random change by factors."""
        ...


def check_group(group: str, activations: str, fold_norms: bool) -> None:
    """Refuse an unknown group, teleported activations with another than ``"scaling"``, and folding with it.

    Raises:
        ValueError: the sentence names both.
        TypeError: ``fold_norms`` is neither True nor False.
    """
    check_choice("group", group, GROUPS)
    if not isinstance(fold_norms, bool):
        raise TypeError(f"fold_norms must be True or False, got {fold_norms!r}")
    if group != "scaling" and activations == "teleport":
        raise ValueError(f'activations="teleport" is of group="scaling" alone, got group={group!r}')
    if group == "scaling" and fold_norms:
        raise ValueError('fold_norms=True is for other groups than "scaling"')


def group_move(
    settings: Settings,
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn | None,
    forward: Forward | None,
    generator: torch.Generator | None,
    callback: Callback | None,
    keep_modes: bool,
    processes: Group,
) -> GroupReport:
    """One event; arguments as of a call of ``ChangeOfBasis``.

    Raises:
        ValueError: no batches, or ``keep_modes``.
        UnsupportedModel: sharded parameters, but not by ``fully_shard``.
    """
    source = generator or settings.generator

    def draw(symmetries: Symmetries, held: HeldTensors) -> GroupChange:
        held.group.draw_alike(source)
        stretch = (max(LEAST_SINGULAR_VALUE, 1 - settings.range), 1 + settings.range)
        element = symmetries.sample(settings.group, source, stretch)
        factors = [settings.sample(symmetries.quiver, source)] if settings.group == "all" else []
        folding = [folding_of(symmetries.quiver, held, symmetries.folded)] if symmetries.folded else []
        for change, name in itertools.product(factors, symmetries.folded):  # they stay one
            change.tau[own_classes(symmetries.quiver, name)[0]] = 1
        return GroupChange([*folding, *factors, element])

    tolerance = half_tolerance(settings.tolerance, model.parameters()) if settings.guard == "transaction" else None
    shards = ShardedModel.of(processes, model)
    evaluate = loss_fn or forward or call_model
    begun: list[GroupMove] = []

    def moved() -> GroupReport:
        check_model(model, sharded=shards is not None)
        if keep_modes:
            raise ValueError(
                f'keep_modes=True is of group="scaling" alone, got group={settings.group!r}: statistics of batch norm, '
                "which evaluations in training mode change, move with their channels"
            )
        part = processes if shards is None else shards.group
        move = GroupMove(model, list(batches), evaluate, loss_fn is not None, draw, tolerance, callback, part, shards)
        move.fold_norms = settings.fold_norms
        begun.append(move)
        return move.run()

    try:
        if shards is not None:
            return shards.group.together(partial(shards.during, moved))
        return processes.together(partial(with_whole_parameters, processes, model, moved))
    except BaseException:  # an interrupt after the move, before the report is the caller's
        if begun and (shards is not None or not any(map(is_sharded, model.parameters()))):  # else written last
            begun[-1].put_back()
        raise
