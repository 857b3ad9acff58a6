"""Models of ``fully_shard`` (FSDP2) that move on their shards: each process moves the rows that it holds.

The modules hold this process's rows as plain parameters during an event, and FSDP's own hooks are off. The parameters
of one module of ``fully_shard`` are whole during its call alone, and again where a derivative needs them; those of the
rest of the model during an evaluation, as FSDP keeps them between the forward and the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from teleport._processes.group import Group
from teleport._processes.ranks import Ranks
from teleport._processes.shards import Rows, Shards, gathered
from teleport._segments.plan import Call, Plan
from teleport._segments.recomputed import NotRepeatable
from teleport._segments.segmented import in_segments, plain
from teleport._tracing.differentiability import check_graph
from teleport._tracing.ownership import tensors_in
from teleport._tracing.replicas import is_sharded, local_part, sharding_modules, shards_again
from teleport._tracing.undisturbed import ModelState
from teleport._undone import always_undone

Result = TypeVar("Result")
Slots = dict[tuple[nn.Module, str], nn.Parameter]
"""Parameters by the module that holds them and their name there."""

HOOKS = ("_forward_pre_hooks", "_forward_hooks")


HARMLESS = {
    *("device", "dtype", "layout", "requires_grad", "is_leaf", "grad_fn", "ndim", "is_cuda", "is_meta"),
    *("dim", "element_size", "is_complex", "is_floating_point", "get_device"),
}
"""What is the same of a parameter and of some rows of it."""


class _ReadsOfRows(TorchFunctionMode):
    """Refuses an evaluation that takes the rows of this process for a parameter, as a penalty on weights would."""

    def __init__(self, rows: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self._rows = set(map(id, rows))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        name = getattr(func.__self__, "__name__", "") if name == "__get__" else name
        if func is not gathered and name not in HARMLESS:
            for tensor in tensors_in((args, kwargs)):
                if id(tensor) in self._rows:
                    raise NotRepeatable(f"a parameter is read by {name} outside of the module that holds it")
        return func(*args, **kwargs)


class ShardedModel:
    """A model whose parameters are all sharded by rows over the processes of a group.

    Args:
        group: of the processes.
        model: whose parameters are shards.

    Attributes:
        group: the same processes, with the rows that each holds.
        whole: by name a parameter on the device meta with the shape of the whole one, for tracers.
    """

    def __init__(self, group: Ranks, model: nn.Module) -> None:
        self._fsdp = sharding_modules(model)
        shards = dict(model.named_parameters())
        own = {
            shard: nn.Parameter(local_part(shard.detach()), requires_grad=shard.requires_grad)
            for shard in shards.values()
        }
        self._shards = _slots(model)
        self._own = {slot: own[shard] for slot, shard in self._shards.items()}
        rows = {own[shard]: Rows.of(name, shard.shape, group.rank, group.size) for name, shard in shards.items()}
        self.group = Shards(group.processes, group.device, rows, {own[shard]: shard for shard in shards.values()})
        self.whole = {
            name: nn.Parameter(torch.empty(shard.shape, dtype=shard.dtype, device="meta"), shard.requires_grad)
            for name, shard in shards.items()
        }
        self._parts = [module for module in _outermost(model, self._fsdp) if plain(module)]
        self._inspecting = False

    @classmethod
    def of(cls, group: Group, model: nn.Module) -> ShardedModel | None:
        """The model on its shards, or ``None`` if it is not sharded so.

        All of its parameters must be shards of rows, of one mesh of one axis over the ranks of the group in their
        order, used in the precision in which they are kept, and in modules that hold them as plain attributes.
        """
        modules = shards_again(model)
        if not isinstance(group, Ranks) or not modules:
            return None
        shards = dict(model.named_parameters())
        if all(_by_rows(name, shard, group) for name, shard in shards.items()) and _plain_slots(model, modules):
            return cls(group, model)
        return None

    def during(self, work: Callable[[], Result]) -> Result:
        """The result of ``work``, with this process's rows in the modules and without FSDP's hooks."""
        hooks = [(module, name, getattr(module, name)) for module in self._fsdp for name in HOOKS]

        def on_rows() -> Result:
            for module, name, found in hooks:
                numbers = {each.id for each in _handles(module)}
                setattr(module, name, type(found)((n, hook) for n, hook in found.items() if n not in numbers))
            _put(self._own)
            return work()

        def put_back() -> None:
            _put(self._shards)
            for module, name, found in hooks:
                setattr(module, name, found)

        return always_undone(on_rows, put_back)

    def plan(self, evaluate: Callable[[Plan, Any], Tensor], batch: Any, custom_operations: list[bool]) -> Plan:
        """How the loss of an event is evaluated: the modules of ``fully_shard`` one at a time, if they can be repeated.

        Args:
            evaluate: the loss on a batch by a plan.
            batch: of the event.
            custom_operations: entered by the first evaluation.
        """
        if self._parts:
            count = len(self._parts)
            plan = Plan(self._parts, chosen=f"{count} sharded parts gathered one at a time, again for derivatives")
            self._inspecting = True
            try:
                with _ReadsOfRows(self.group.rows):
                    loss = evaluate(plan, batch)
                trained = [parameter for parameter in self.group.rows if parameter.requires_grad]
                torch.autograd.grad(loss, trained, allow_unused=True)
                return plan
            except NotRepeatable:
                custom_operations.clear()
            finally:
                self._inspecting = False
        return Plan(recorded=False, chosen="all parts gathered for each evaluation; gradients and moves stay sharded")

    def plan_once(self, evaluate: Callable[[], Any]) -> Plan:
        """How evaluations are made that are not differentiated: the modules of ``fully_shard`` gathered one at a time,
        unless code outside of them reads their parameters in ``evaluate``."""
        if self._parts:
            plan = Plan(self._parts, differentiated=False, chosen=f"{len(self._parts)} sharded parts gathered in turn")
            with suppress(NotRepeatable), _ReadsOfRows(self.group.rows):
                self.evaluated(plan, evaluate)
                return plan
        return Plan(differentiated=False, chosen="all parts gathered for each evaluation; moves stay sharded")

    def loss(self, plan: Plan, loss_fn: Call, model: nn.Module, batch: Any) -> Any:
        """``loss_fn(model, batch)`` by a plan."""
        return self.evaluated(plan, lambda: loss_fn(model, batch))

    def evaluated(self, plan: Plan, evaluate: Callable[[], Result]) -> Result:
        """The result of an evaluation by a plan."""
        within = {module for part in plan.parts for module in part.modules()}
        rest = {slot: each for slot, each in self._own.items() if slot[0] not in within}
        kept = nullcontext() if plan.differentiated else saved_tensors_hooks(_nothing, _nothing)
        with kept, self._gathered(rest):
            return in_segments(plan.parts, evaluate, self._around, repeated=plan.differentiated)

    def _around(self, part: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        within = set(part.modules())
        slots = {slot: parameter for slot, parameter in self._own.items() if slot[0] in within}

        @wraps(forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._gathered(slots):
                found = forward(*args, **kwargs)
            if self._inspecting and any(check_graph(each, twice=False) for each in tensors_in(found)):
                raise NotRepeatable("a part of the model has custom operations")
            return found

        return call

    @contextmanager
    def _gathered(self, slots: Slots) -> Iterator[None]:
        """The parameters of some modules as a whole."""
        held = list(dict.fromkeys(slots.values()))
        wholes = dict(zip(held, gathered(self.group, held), strict=True)) if held else {}
        try:
            _put({slot: wholes[parameter] for slot, parameter in slots.items()})
            yield
        finally:
            wholes.clear()
            _put(slots)


class GatheredEvaluation:
    """Evaluations of a sharded model that are not differentiated, by a plan that is chosen once.

    Args:
        shards: the model.
        evaluate: ``evaluate(model, batch)``.

    Attributes:
        plan: by which it is evaluated.
    """

    def __init__(self, shards: ShardedModel, evaluate: Call) -> None:
        self._shards, self._evaluate = shards, evaluate
        self.plan = Plan(differentiated=False)

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        return self._shards.evaluated(self.plan, lambda: self._evaluate(model, batch))

    def choose(self, state: ModelState, model: nn.Module, batch: Any) -> None:
        """Choose the plan by an evaluation."""
        self.plan = self._shards.plan_once(lambda: state.evaluate(lambda: self._evaluate(model, batch)))


def _nothing(_: Any) -> Any:
    """What a graph keeps that is not differentiated, so that it holds no gathered parameters."""
    return None


def _slots(model: nn.Module) -> Slots:
    return {
        (module, name): parameter
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    }


def _put(slots: Mapping[tuple[nn.Module, str], Tensor]) -> None:
    """Let modules hold these tensors."""
    for (module, name), tensor in slots.items():
        module._parameters[name] = tensor  # type: ignore[assignment]


def _by_rows(name: str, shard: nn.Parameter, group: Ranks) -> bool:
    """Whether a parameter is a shard of the rows that its rank holds in this group, in plain memory."""
    from torch.distributed.tensor import Shard  # imports of a process that shards

    if not is_sharded(shard) or shard.is_complex() or not shard.is_floating_point():
        return False
    mesh, placements = shard.device_mesh, shard.placements  # type: ignore[attr-defined]
    if mesh.ndim != 1 or mesh.size() != group.size or tuple(placements) != (Shard(0),):
        return False
    own, rows = local_part(shard.detach()), Rows.of(name, shard.shape, group.rank, group.size)
    alike = mesh.get_local_rank() == group.rank and own.shape == (rows.held, *shard.shape[1:])
    return alike and own.is_contiguous()


def _plain_slots(model: nn.Module, modules: Sequence[Any]) -> bool:
    """Whether parameters are used as kept, and modules look for them where they were assigned."""
    policies = [module._get_fsdp_state()._mp_policy for module in modules]
    if any(each.param_dtype is not None or each.output_dtype is not None for each in policies):
        return False
    return all(type(module).__setattr__ is nn.Module.__setattr__ for module, _ in _slots(model))


def _outermost(model: nn.Module, modules: Sequence[nn.Module]) -> list[nn.Module]:
    """The modules of ``fully_shard`` below the model that are in no other one."""
    known, found, waiting = set(modules), list[nn.Module](), list(model.children())[::-1]
    while waiting:
        module = waiting.pop()
        if module not in known:
            waiting += list(module.children())[::-1]
        elif module not in found and any(each.requires_grad for each in module.parameters()):
            found.append(module)
    return found


def _handles(module: Any) -> list[Any]:
    state = module._get_fsdp_state()
    return [state._pre_forward_hook_handle, state._post_forward_hook_handle]
