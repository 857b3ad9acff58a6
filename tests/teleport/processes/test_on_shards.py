"""NullSpace, LevelSet and RandomNullSpace on shards of ``fully_shard``, against one process with the whole model."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from teleport import LevelSet, NullSpace, RandomNullSpace, TeleportReport, preview
from tests.teleport.processes.spawned import results_of_ranks
from tests.teleport.processes.test_sharded import full

pytestmark = pytest.mark.slow

EQUAL = {"atol": 1e-10, "rtol": 1e-10}


class Transposed(nn.Module):
    """A linear map with its weight stored ``[in, out]``, so that shards of rows are columns of the matrix."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


class Result:
    """What a block may return that cannot be taken apart."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


class Block(nn.Module):
    """Attention, a transposed map and a grouped convolution, of which not all have as many rows as there are ranks."""

    def __init__(self, width: int, opaque: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.wide, self.narrow = Transposed(width, width + 5), nn.Linear(width + 5, width)
        self.mixing = nn.Conv1d(width, width, 1, groups=2)
        self.opaque = opaque

    def forward(self, x: Tensor) -> Any:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.narrow(torch.tanh(self.wide(x)))
        x = x + self.mixing(x.mT).mT
        return Result(x) if self.opaque else x


class Network(nn.Module):
    """Tokens to the next token, with the embedding tied to the head."""

    def __init__(self, blocks: int, width: int, opaque: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, width)
        self.blocks = nn.ModuleList(Block(width, opaque) for _ in range(blocks))
        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, width)
        self.head = nn.Linear(width, 13)
        self.head.weight = self.embedding.weight
        self.blocks[0].norm.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
            x = x.value if isinstance(x, Result) else x
        return self.head(torch.relu(self.inner(self.norm(x))))


def network(blocks: int = 2, width: int = 16, opaque: bool = False) -> Network:
    torch.manual_seed(0)
    return Network(blocks, width, opaque).double()


def sharded(size: int, **options: Any) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, mesh = network(**options), init_device_mesh("cpu", (size,))
    for module in (*model.blocks, model):
        fully_shard(module, mesh=mesh)
    return model


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def batches(number: int = 2) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(number)
    return [tuple(torch.randint(13, (2, 2, 3), generator=source)) for _ in range(number)]  # type: ignore[misc]


def part_of(rank: int, size: int) -> Callable[[list[Any]], list[Any]]:
    return lambda given: [tuple(tensor.chunk(size)[rank] for tensor in batch) for batch in given]


METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "null space": (NullSpace(forward="each"), {}),
    "moved": (NullSpace(objective_params="moved", forward="each", steps=2), {}),
    "published": (NullSpace(0.01, steps=2, step="fixed", lr_unit="absolute", threshold=0.999), {}),
    "lowered log": (NullSpace(objective="log_gradient_norm", forward="each", steps=2, relative_cap=1.2), {}),
    "constraint": (NullSpace(steps=2), {"constraint": 3}),
    "level set": (LevelSet(steps=3), {}),
    "random move": (RandomNullSpace(seed=3), {}),
    "random move, above the cap": (RandomNullSpace(length=2.0, relative_cap=1.05), {}),
}


def penalised(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A loss that reads parameters outside of the modules that hold them."""
    return loss_fn(model, batch) + 0.01 * model.blocks[0].wide.weight.square().sum() + model.head.bias.square().sum()


def moved(
    name: str, model: nn.Module, part: Callable[[list[Any]], list[Any]], loss_fn: Callable[..., Tensor] = loss_fn
) -> tuple[list[Tensor], list[Any], str]:
    """The parameters after an event, what its report says, and how it was evaluated."""
    method, options = METHODS[name]
    given = {key: part(batches(value)) for key, value in options.items()}
    report = method(model, part(batches()), loss_fn, **given)
    return [full(parameter) for parameter in model.parameters()], told_of(report), report.memory


def told_of(report: TeleportReport) -> list[Any]:
    layers: list[Any] = [
        (each.name, each.parameters, each.reason, each.relative_change, getattr(each, "surviving", None))
        for each in report.layers
    ]
    steps = [(each.steps, str(each.stopped), each.accepted, each.gradient_norm_after) for each in report.batches]
    return [layers, steps, report.loss_before, report.loss_after, report.gradient_norm_before, report.no_op]


class Gathered(TorchDispatchMode):
    """The largest number of bytes of gathered tensors that exist at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "allgather_base" in str(func):
            storage = args[0].untyped_storage()
            self._held[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self._held.pop, storage._cdata)
            self.most = max(self.most, sum(self._held.values()))
        return func(*args, **(kwargs or {}))


def gathered_by(rank: int, size: int, opaque: bool) -> float:
    """What a rank holds gathered at once during an event, in units of all parameters."""
    model = sharded(size, blocks=6, opaque=opaque)
    with Gathered() as seen:
        NullSpace()(model, part_of(rank, size)(batches(1)), loss_fn)
    return seen.most / sum(each.numel() * each.element_size() for each in model.parameters())


def previewed(rank: int, size: int) -> tuple[bool, bool]:
    """Whether the move that was undone was none, and whether the shards are what they were."""
    model = sharded(size)
    before = [full(parameter) for parameter in model.parameters()]
    report = preview(NullSpace(), model, part_of(rank, size)(batches(1)), loss_fn)
    after = [full(parameter) for parameter in model.parameters()]
    return report.no_op, all(map(torch.equal, before, after))


def all_of_it(rank: int, size: int) -> dict[str, Any]:
    part = part_of(rank, size)
    found: dict[str, Any] = {name: moved(name, sharded(size), part) for name in METHODS}
    found["opaque"] = moved("null space", sharded(size, opaque=True), part)
    evaluated = sharded(size)
    with torch.no_grad():
        loss_fn(evaluated, part(batches())[0])  # after which FSDP keeps the root whole
    found["after an evaluation"] = moved("null space", evaluated, part)
    hooks = [len(each._forward_pre_hooks) + len(each._forward_hooks) for each in evaluated.modules()]
    found["hooks"] = hooks == [
        len(each._forward_pre_hooks) + len(each._forward_hooks) for each in sharded(size).modules()
    ]
    found["penalty"] = moved("null space", sharded(size), part, penalised)
    found["gathered"] = [gathered_by(rank, size, opaque) for opaque in (False, True)]
    found["preview"] = previewed(rank, size)
    found["whole"] = [name for name, each in evaluated.named_parameters() if not hasattr(each, "to_local")]
    return found


@pytest.fixture(scope="module")
def ranks():
    return results_of_ranks(all_of_it, 2)


def near(found: Any, right: Any) -> bool:
    """Whether two nested results are equal, real numbers up to rounding."""
    if isinstance(right, (list, tuple)):
        return len(found) == len(right) and all(map(near, found, right))
    return found == (pytest.approx(right, rel=1e-7, abs=1e-9) if isinstance(right, float) else right)


def check(found: Any, one: Any) -> None:
    """That parameters and the report are those of one process."""
    for value, right in zip(found[0], one[0], strict=True):
        torch.testing.assert_close(value, right, **EQUAL)
    for told, expected in zip(found[1], one[1], strict=True):
        assert near(told, expected), (told, expected)


@pytest.mark.parametrize("name", METHODS)
def test_shards_move_as_the_whole_model(ranks, name):
    model = network()
    before = [full(parameter) for parameter in model.parameters()]
    one = moved(name, model, lambda given: given)
    assert not all(torch.equal(old, new) for old, new in zip(before, one[0], strict=True))
    for found in ranks:
        check(found[name], one)
        assert "2 sharded parts gathered one at a time" in found[name][2]


def test_parts_that_cannot_be_repeated_are_gathered_for_an_evaluation(ranks):
    one = moved("null space", network(opaque=True), lambda given: given)
    for found in ranks:
        check(found["opaque"], one)
        assert "all parts gathered for each evaluation" in found["opaque"][2]


def test_a_parameter_that_the_loss_reads_is_whole(ranks):
    one = moved("null space", network(), lambda given: given, penalised)
    for found in ranks:
        check(found["penalty"], one)
        assert "all parts gathered for each evaluation" in found["penalty"][2]


def test_an_evaluation_before_makes_no_difference_and_the_model_is_left_as_it_was(ranks):
    for found in ranks:
        for value, right in zip(found["after an evaluation"][0], found["null space"][0], strict=True):
            assert torch.equal(value, right)
        assert found["hooks"]
        assert found["whole"] == []


def test_no_rank_holds_all_parameters_at_once(ranks):
    for found in ranks:
        part_by_part, all_for_an_evaluation = found["gathered"]
        assert 0 < part_by_part < 0.7
        assert all_for_an_evaluation >= 1


def test_preview_leaves_shards_as_they_were(ranks):
    for found in ranks:
        assert found["preview"] == (False, True)
