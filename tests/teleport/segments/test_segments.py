"""Segments against whole evaluations: gradients, products of the Hessian, events; and what cannot be a segment."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import teleport._engine.run_event as event_module
import teleport._segments.choice as choice
from teleport import LevelSet, NullSpace, RandomNullSpace
from teleport._engine.batch_loss import BatchLoss
from teleport._processes.group import ALONE
from teleport._segments.choice import choose
from teleport._segments.plan import WHOLE, Plan, bytes_of, pieces_of
from teleport._segments.recomputed import NotRepeatable, Segment
from teleport._segments.segmented import in_segments, parts_of
from tests.teleport.processes.spawned import results_of_ranks


@pytest.fixture(autouse=True)
def mathematical_attention():
    """Attention with a second derivative, as in an event."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


class Block(nn.Module):
    """Attention of two heads and an MLP; the second argument and the second result pass through."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x, scale=1.0, *, mask=None):
        query, key, value = self.packed(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + scale * self.out(mixed.transpose(1, 2).flatten(2))
        return {"x": self.dropout(x + self.down(F.gelu(self.up(x)))), "scale": scale}


class Network(nn.Module):
    """Blocks with a skip over them all, and a weight that the first and the last layer share."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Linear(5, 8)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.head = nn.Linear(8, 5, bias=False)
        self.head.weight = nn.Parameter(torch.randn(5, 8) / 3)

    def forward(self, x):
        first = x = self.embedding(x) + F.linear(x, self.head.weight.T)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        for block in self.blocks:
            x = block(x, scale=self.scale, mask=mask)["x"]
        return self.head(x + first)


def loss_of(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


def network(dtype=torch.float64, blocks=3):
    torch.manual_seed(0)
    return Network(blocks).to(dtype), (torch.randn(6, 4, 5, dtype=dtype), torch.randn(6, 4, 5, dtype=dtype))


def derivatives(model, batch, plan):
    """Loss, gradient and product of the Hessian with the gradient, by torch alone."""
    parameters = list(model.parameters())
    torch.manual_seed(1)  # of dropout
    loss = plan.loss(loss_of, model, batch)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    half = sum(each.square().sum() for each in gradient) / 2
    return loss, gradient, torch.autograd.grad(half, parameters)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pieces", [1, 2])
def test_derivatives_are_those_of_the_whole_evaluation(training, pieces):
    """The float64 derivatives agree to rounding; with dropout the segments draw the same numbers again."""
    model, batch = network()
    model.train(training and pieces == 1)  # pieces would draw others
    whole = derivatives(model, batch, WHOLE)
    planned = derivatives(model, batch, Plan(parts_of(model), pieces))
    assert len(parts_of(model)) == 3
    for expected, found in zip(whole, planned, strict=True):
        for one, other in zip(
            [expected] if isinstance(expected, torch.Tensor) else expected,
            [found] if isinstance(found, torch.Tensor) else found,
            strict=True,
        ):
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    assert max(float(each.abs().max()) for each in whole[2]) > 1e-3


@pytest.mark.parametrize("keep", [False, True])
def test_a_lean_direction_is_the_plain_one(keep):
    """Gradients that are freed on the way, shared weights among them, give the same product of the Hessian."""
    model, batch = network()
    model.eval()
    parameters, plan = list(model.parameters()), Plan(parts_of(model))
    plain = BatchLoss(lambda: loss_of(model, batch), parameters)
    lean = BatchLoss(lambda: plan.loss(loss_of, model, batch), parameters, lean=True)
    expected = plain.ascent_direction(plain.point(True), parameters)
    point = lean.point(True)
    kept = [each.detach() for each in point.gradients]
    norm, found = point.norm, lean.ascent_direction(point, parameters, keep=keep)
    assert all(torch.allclose(*pair, rtol=1e-12, atol=1e-12) for pair in zip(expected, found, strict=True))
    assert point.norm == norm
    assert point.gradients == []
    freed = [each.untyped_storage().nbytes() == 0 for each in kept]
    assert any(freed) != keep
    assert not all(freed)


METHODS = [
    NullSpace(steps=2),
    NullSpace(steps=2, forward="each", threshold=0.9, guard="none"),
    NullSpace(steps=2, path="shortest"),
    NullSpace(steps=1, objective="log_gradient_norm"),
    RandomNullSpace(),
    LevelSet(steps=3),
]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_events_in_segments_end_where_whole_ones_do(method, monkeypatch):
    """In float64, to 1e-10 of the move's result, for a large model and with a budget that needs pieces."""
    model, batch = network()
    given = [batch, (batch[0] + 0.1, batch[1])]
    ends, reports = [], []
    for plan in (WHOLE, Plan(parts_of(model), chosen="parts"), Plan((), 3, chosen="pieces")):
        own = copy.deepcopy(model)
        of_own = dataclasses.replace(plan, parts=parts_of(own) if plan.parts else ())
        monkeypatch.setattr(event_module, "choose", lambda *_, plan=of_own: plan)
        reports.append(copy.deepcopy(method)(own, given, loss_of))
        ends.append(torch.cat([each.detach().flatten() for each in own.parameters()]))
        assert all("forward" not in module.__dict__ for module in own.modules())
    assert reports[0].steps > 0
    assert not reports[0].no_op
    assert [report.memory for report in reports] == ["", "parts", "pieces"]
    for end, report in zip(ends[1:], reports[1:], strict=True):
        assert torch.allclose(ends[0], end, rtol=1e-10, atol=1e-10)
        assert report.steps == reports[0].steps
        assert report.gradient_norm_after == pytest.approx(reports[0].gradient_norm_after, rel=1e-9)


class Writing(nn.Module):
    """Counts its calls in a buffer that its result depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(8, 8), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * self.calls


def test_a_part_that_differs_when_it_is_repeated_is_evaluated_whole(monkeypatch):
    """The event falls back to whole evaluations; with a budget that needs parts it is refused in one sentence."""
    torch.manual_seed(0)
    model = nn.Sequential(*[Writing() for _ in range(2)]).double()
    batch = (torch.randn(3, 8).double(), torch.randn(3, 8).double())
    monkeypatch.setattr("teleport._segments.choice.LARGE", 0)
    report = NullSpace(steps=1)(model, [batch], loss_of)
    assert report.steps == 1
    assert report.memory == ""
    assert [each.calls for each in model] == [0, 0]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda x, other: [x[0].add_(1) * 2], "writes into its inputs"),
        (lambda x, other: [x[0] * other], "another part computed"),
    ],
)
def test_what_cannot_be_a_segment_is_refused(function, sentence):
    x, weight = torch.randn(3), torch.randn(3, requires_grad=True)
    other = weight * 2
    with pytest.raises(NotRepeatable, match=sentence):
        Segment(lambda tensors: function(tensors, other), [x])


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("500 mb", 5 * 10**8), (4096, 4096), (None, None)]
)
def test_a_budget_is_read(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("wrong", ["", "2", "-1GB", "GB", "0MB", "2 parsec", 0, -5, True, 2.5, [1]])
def test_another_budget_is_refused(wrong):
    with pytest.raises(ValueError, match="memory must be bytes as a whole number above 0, or text such as"):
        NullSpace(memory=wrong)


def test_a_budget_is_for_objectives_of_the_norm():
    with pytest.raises(ValueError, match="memory is for objectives of the gradient norm alone"):
        NullSpace(memory="1GB", objective="sharpness")


def test_pieces_have_all_samples_and_their_shares():
    batch = {"x": torch.arange(7), "mode": "a"}
    pieces = pieces_of(batch, 3)
    assert torch.cat([piece["x"] for _, piece in pieces]).tolist() == list(range(7))
    assert [round(share * 7) for share, _ in pieces] == [3, 2, 2]
    assert all(piece["mode"] == "a" for _, piece in pieces)
    for wrong in ([torch.zeros(3), torch.zeros(4)], [torch.tensor(1.0)], [torch.zeros(2)]):
        with pytest.raises(NotRepeatable):
            pieces_of(wrong, 3)


@pytest.mark.slow
def test_a_budget_chooses_and_says_so(monkeypatch):
    """The less there is, the more is computed again; the least of all is refused in one sentence."""
    monkeypatch.setattr(choice, "KEPT", 0)  # small networks
    model, _batch = network(blocks=4)
    given, chosen = (torch.randn(64, 16, 5).double(), torch.randn(64, 16, 5).double()), []
    for size in ("1GB", "40MB", "12MB", "3MB"):
        chosen.append(NullSpace(steps=1, memory=size)(copy.deepcopy(model), [given], loss_of).memory)
    assert chosen[0].startswith("the whole record")
    assert chosen[0].endswith("of 954 MiB)")
    assert len(set(chosen)) == 4
    assert "parts of the model" in chosen[2]
    assert "pieces of a batch" in chosen[3]
    with pytest.raises(ValueError, match=r"memory=49 KiB is too little: this event needs about \d+ KiB besides"):
        NullSpace(steps=1, memory="50kB")(model, [given], loss_of)


@pytest.mark.slow
def test_a_loss_that_is_no_mean_is_not_evaluated_in_pieces(monkeypatch):
    """A sum over samples, and one over pairs of them."""
    monkeypatch.setattr(choice, "KEPT", 0)  # small networks
    model, _ = network()
    batch = (torch.randn(8, 4, 5).double(), torch.randn(8, 4, 5).double())
    for loss_fn in (lambda m, b: m(b[0]).square().sum(), lambda m, b: m(b[0]).var(0, unbiased=False).mean()):
        calls = []

        def evaluate(plan, batch, loss_fn=loss_fn, calls=calls):
            calls.append(plan.pieces)
            return plan.loss(loss_fn, model, batch)

        with pytest.raises(ValueError, match="is too little"):
            choose(model, [batch], evaluate, 200_000, ALONE, False, [])
        assert max(calls) > 1  # pieces were tried, and found to differ


def test_calls_outside_of_a_gradient_are_plain():
    model, batch = network()
    model.eval()
    with torch.no_grad():
        assert torch.equal(in_segments(parts_of(model), lambda: model(batch[0])), model(batch[0]))


def moved_by_rank(rank, size):
    """The ends of two methods on a rank's part of the batch, and what was chosen; last a model that is no segment's."""
    choice.LARGE, ends = 0, []
    model, batch = network()
    own = tuple(tensor.chunk(size)[rank] for tensor in batch)
    for method in (NullSpace(steps=2), LevelSet(steps=2)):
        moved = copy.deepcopy(model)
        report = method(moved, [own], loss_of)
        ends.append((torch.cat([each.detach().flatten() for each in moved.parameters()]), report.memory))
    counting = nn.Sequential(*[Writing() for _ in range(2)]).double()
    chunk = (torch.randn(3, 8).double(), torch.randn(3, 8).double())
    return [*ends, (torch.zeros(1), NullSpace(steps=1)(counting, [chunk], loss_of).memory)]


@pytest.mark.slow
def test_ranks_in_segments_end_where_one_whole_process_does():
    """Replicas are bit-identical, and a model that differs when it is repeated is whole on all ranks."""
    ranks = results_of_ranks(moved_by_rank, 2)
    model, batch = network()
    for number, method in enumerate((NullSpace(steps=2), LevelSet(steps=2))):
        alone = copy.deepcopy(model)
        assert method(alone, [batch], loss_of).steps > 0
        end = torch.cat([each.detach().flatten() for each in alone.parameters()])
        assert torch.equal(ranks[0][number][0], ranks[1][number][0])
        assert torch.allclose(ranks[0][number][0], end, rtol=1e-10, atol=1e-10)
        assert [each[number][1].partition(" one")[0] for each in ranks] == ["3 parts of the model"] * 2
    assert [each[2][1] for each in ranks] == ["", ""]
