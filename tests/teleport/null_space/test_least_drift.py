"""``NullSpace(path="least_drift")``: the most growth of the gradient norm per change on held-out batches."""

from __future__ import annotations

import copy
import gc
import math
import weakref

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import teleport
from teleport import NullSpace
from teleport._null_space.held_out import DAMPING
from tests.teleport.networks import CONVOLUTIONS, LINEAR, PLAIN, batches_of, cross_entropy, mlp

LEAST = NullSpace(path="least_drift", lr=1.0, steps=20)
SHORTEST = NullSpace(path="shortest", lr=1.0, steps=20)
WIDTH = 12


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Bilinear(nn.Module):
    """``<c, W_2 W_1 x>`` for ``W_1 = I``: one layer moves, and the gradient norm is ``|W_2^T c|`` beside constants."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH, bias=False)
        self.second = nn.Linear(WIDTH, 3, bias=False)
        self.first.weight.data = torch.eye(WIDTH)
        self.register_buffer("c", torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) @ self.c


def mean_output(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).mean()


def values(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def moved(method, model, batches, loss_fn=cross_entropy, **options):
    """A moved copy of the model, and the report."""
    model = copy.deepcopy(model)
    return model, method(model, batches, loss_fn, **options)


def metric_of(batch: Tensor, held_out: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A basis of the null space of the batch, and the metric ``N^T M N + lambda I`` there, by dense decompositions."""
    basis = scipy.linalg.null_space(batch.numpy())
    seen = held_out.numpy() @ basis
    moment = seen.T @ seen
    return basis, moment + DAMPING * np.trace(moment) / len(moment) * np.eye(len(moment))


@pytest.mark.parametrize("samples", [4, 9])  # a basis of the span is kept, and one of the null space
@pytest.mark.parametrize("count", [5, 200])  # Woodbury's identity, and the matrix itself
def test_the_move_has_the_least_drift_of_all_that_reach_the_norm(samples, count):
    """The optimum of ``min <v, A v>`` with ``|w + v|`` given, from the generalised eigenvalues of ``(I, A)``."""
    model, batch = Bilinear(), torch.randn(samples, WIDTH)
    held_out = torch.randn(count, WIDTH) * torch.logspace(0, -1.5, WIDTH)
    after, report = moved(LEAST, model, [batch], mean_output, held_out=[held_out])
    basis, metric = metric_of(batch, held_out)
    c = model.c.numpy()
    w, reached = (np.asarray(each.second.weight.detach()).T @ c @ basis for each in (model, after))
    v = reached - w
    mu = scipy.linalg.eigh(np.eye(len(metric)), metric, eigvals_only=True)[-1]

    def at(weight):
        return np.linalg.solve(weight * metric - np.eye(len(metric)), w)

    found = scipy.optimize.brentq(
        lambda shift: np.linalg.norm(w + at(mu * (1 + shift))) - np.linalg.norm(reached), 1e-9, 1e6
    )
    best = at(mu * (1 + found))
    assert report.gradient_norm_after == pytest.approx(1.98 * report.gradient_norm_before, rel=0.011)
    assert best @ metric @ best <= v @ metric @ v * (1 + 1e-9)
    assert v @ metric @ v <= 1.05 * best @ metric @ best
    change = np.asarray((after.second.weight - model.second.weight).detach())
    assert change == pytest.approx(np.outer(c, v @ basis.T) / (c @ c), abs=1e-9)  # nothing is spent on other rows
    short, _ = moved(SHORTEST, model, [batch], mean_output)
    plain = np.asarray((short.second.weight - model.second.weight).detach()).T @ c @ basis
    assert v @ metric @ v < (0.9 if samples == 4 else 1.0) * plain @ metric @ plain  # 8 free dimensions, or 3


@pytest.mark.parametrize("samples", [4, 9])
def test_the_first_direction_is_the_preconditioned_gradient(samples):
    model, batch, held_out = Bilinear(), torch.randn(samples, WIDTH), torch.randn(30, WIDTH)
    after, _ = moved(NullSpace(path="least_drift", lr=1.0, steps=1), model, [batch], mean_output, held_out=[held_out])
    basis, metric = metric_of(batch, held_out)
    gradient = np.outer(model.c, model.second.weight.detach().numpy().T @ model.c.numpy())
    expected = gradient @ basis @ np.linalg.inv(metric) @ basis.T
    change = np.asarray((after.second.weight - model.second.weight).detach())
    assert change / np.linalg.norm(change) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-10)


@pytest.mark.parametrize("samples", [4, 9])
def test_it_is_the_shortest_way_if_held_out_inputs_are_the_same_in_all_directions(samples):
    model, batch = Bilinear(), torch.randn(samples, WIDTH)
    held_out = 3 * torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    least, _ = moved(LEAST, model, [batch], mean_output, held_out=[held_out])
    shortest, _ = moved(SHORTEST, model, [batch], mean_output)
    assert not torch.equal(values(least), values(model))
    assert values(least) == pytest.approx(values(shortest).numpy(), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("network", [PLAIN, *CONVOLUTIONS[:2]], ids=str)
def test_it_is_the_shortest_way_if_held_out_inputs_show_nothing_of_the_null_space(network, dtype):
    """What rounding leaves of the batch's own inputs there is no metric."""
    model, batch = network.make(dtype)
    least, _ = moved(LEAST, model, [batch], held_out=[batch, batch])
    shortest, _ = moved(SHORTEST, model, [batch])
    apart, distance = values(least) - values(shortest), values(shortest) - values(model)
    assert float(apart.norm() / distance.norm()) < 5e-3


@pytest.mark.parametrize("network", [*LINEAR, *CONVOLUTIONS], ids=str)
@pytest.mark.parametrize("forward", ["once", "each"])
def test_the_loss_on_the_batch_stays(network, forward):
    """On layers of each kind, with groups and without biases, too."""
    model, batch = network.make()
    x, y = batch
    held_out = [(torch.randn(5, *x.shape[1:]).to(x), torch.randint(3, (5,)).to(y)) for _ in range(2)]
    method = NullSpace(path="least_drift", guard="none", forward=forward)
    after, report = moved(method, model, [batch], held_out=held_out)
    assert abs(float(cross_entropy(after, batch)) - float(cross_entropy(model, batch))) < 1e-11
    assert report.gradient_norm_after > 1.05 * report.gradient_norm_before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_stream_of_batches_is_as_one_batch_and_none_is_kept(dtype):
    model, batch = PLAIN.make()
    model, batch = model.to(dtype), (batch[0].to(dtype), batch[1])
    parts = [(x.to(dtype), y) for x, y in batches_of(6)]
    joined = tuple(torch.cat(each) for each in zip(*parts, strict=True))
    alive: list[int] = []

    def stream():
        seen = []
        for x, y in parts:
            gc.collect()
            alive.append(sum(each() is not None for each in seen))
            copied = x.clone()
            seen.append(weakref.ref(copied))
            yield copied, y
            del copied

    whole, _ = moved(LEAST, model, [batch], held_out=[joined])
    streamed, _ = moved(LEAST, model, [batch], held_out=stream())
    loaded, _ = moved(LEAST, model, [batch], held_out=DataLoader(TensorDataset(*joined), batch_size=5))
    assert max(alive) <= 1  # the batch that the loop itself still names
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    for other in (streamed, loaded):
        assert values(other) == pytest.approx(values(whole).numpy(), abs=tolerance)
    assert (values(whole) - values(model)).abs().max() > 100 * tolerance


def test_other_data_change_less_than_by_the_shortest_way():
    """On data that are neither the batch nor held out, of inputs with few strong directions."""
    torch.manual_seed(1)
    model = mlp(40)

    def data(n):
        return torch.randn(n, 6) * torch.logspace(0.5, -1, 6), torch.randint(3, (n,))

    batch, others = data(16), data(1000)
    ends = {
        "least": moved(LEAST, model, [batch], held_out=[data(100) for _ in range(5)]),
        "shortest": moved(SHORTEST, model, [batch]),
    }
    before = model(others[0]).detach()
    change = {
        name: float((after(others[0]) - before).detach().norm() / before.norm()) for name, (after, _) in ends.items()
    }
    norms = {name: report.gradient_norm_after for name, (_, report) in ends.items()}
    assert norms["least"] == pytest.approx(norms["shortest"], rel=0.02)
    assert change["least"] < 0.5 * change["shortest"]


def test_a_layer_that_no_held_out_batch_uses_moves_by_its_weights_norm():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.one, self.other = (nn.Linear(6, 20), nn.Linear(20, 3), nn.Linear(20, 3))
            self.left, self.right = nn.Linear(20, 20), nn.Linear(20, 20)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.first(x))
            if len(x) == 8:
                return self.one(torch.tanh(self.left(hidden))) + self.other(torch.tanh(self.right(hidden)))
            return self.one(torch.tanh(self.left(hidden)))

    model, batch = Branches(), batches_of(1)[0]
    held_out = [batches_of(1, 30)[0]]
    after, report = moved(LEAST, model, [batch], held_out=held_out)
    assert float(cross_entropy(after, batch)) == pytest.approx(float(cross_entropy(model, batch)), abs=1e-12)
    changes = {layer.name: layer.relative_change for layer in report.layers}
    assert changes["right.weight"] > 0
    assert changes["other.weight"] > 0


def test_held_out_batches_are_read_once_an_event_and_only_if_something_moves():
    read = []

    def stream():
        for number, batch in enumerate(batches_of(3)):
            read.append(number)
            yield batch

    model, batch = PLAIN.make()
    batches = [batch, *batches_of(2)]
    report = LEAST(copy.deepcopy(model), batches, cross_entropy, held_out=stream())
    assert [each.steps > 0 for each in report.batches].count(True) >= 1
    assert read == [0, 1, 2]
    capped = NullSpace(path="least_drift", cap=1e-9)(copy.deepcopy(model), batches, cross_entropy, held_out=stream())
    assert capped.no_op
    assert read == [0, 1, 2]


@pytest.mark.parametrize(
    ("method", "held_out", "error", "message"),
    [
        (LEAST, None, ValueError, r"path='least_drift' measures its move on other batches: pass held_out=\[batch"),
        (SHORTEST, [], ValueError, "held_out is for path='least_drift', and the path is 'shortest'"),
        (NullSpace(), [], ValueError, "held_out is for path='least_drift', and the path is 'ascent'"),
        (LEAST, [], ValueError, "held_out has no batch"),
        (LEAST, iter([]), ValueError, "held_out has no batch"),
        (LEAST, torch.zeros(3), TypeError, "held_out must be a list or another iterable of batches, got Tensor"),
        (LEAST, 3, TypeError, "held_out must be a list or another iterable of batches, got"),
    ],
)
def test_a_mistake_is_one_sentence_and_moves_nothing(method, held_out, error, message):
    model, batch = PLAIN.make()
    before = values(model).clone()
    with pytest.raises(error, match=message):
        method(model, [batch], cross_entropy, held_out=held_out)
    assert torch.equal(values(model), before)


@pytest.mark.parametrize("options", [{"step": "fixed"}, {"lr_unit": "absolute"}, {"objective": "-sharpness"}])
def test_settings_without_a_cap_to_move_to_are_refused(options):
    with pytest.raises(ValueError, match="path='least_drift' moves to the cap on the gradient norm"):
        NullSpace(path="least_drift", **options)


def test_an_error_of_a_held_out_batch_restores_the_parameters():
    model, batch = PLAIN.make()
    before = values(model).clone()
    with pytest.raises(RuntimeError):
        LEAST(model, [batch], cross_entropy, held_out=[(torch.zeros(4, 5), torch.zeros(4, dtype=torch.long))])
    assert torch.equal(values(model), before)


def test_held_out_inputs_that_are_not_finite_are_told_by_the_layer():
    model, batch = PLAIN.make()
    x, y = batches_of(1)[0]
    x[1, 2] = math.nan
    after, report = moved(LEAST, model, [batch], held_out=[(torch.nan_to_num(x), y), (x, y)])
    assert not report.batches[0].accepted
    assert report.batches[0].reason == "not finite before any step: the inputs of '2.weight' on held-out batches"
    assert torch.equal(values(after), values(model))


def test_a_preview_moves_nothing_and_a_callback_ends_the_event():
    model, batch = PLAIN.make()
    before = values(model).clone()
    seen = teleport.preview(LEAST, model, [batch], cross_entropy, held_out=batches_of(2))
    assert torch.equal(values(model), before)
    after, report = moved(LEAST, model, [batch], held_out=batches_of(2))
    assert report.gradient_norm_after == seen.gradient_norm_after > report.gradient_norm_before
    assert not torch.equal(values(after), before)
    _, report = moved(LEAST, model, [batch], held_out=batches_of(2), callback=lambda progress: progress.step == 1)
    assert report.batches[0].stopped == teleport.Stopped.CALLBACK
    assert report.batches[0].steps == 1


def test_batches_that_are_drawn_in_the_event_are_those_that_would_be_drawn_before():
    """Each evaluation starts from the same random numbers; the stream's own go on, in the caller's modes."""
    model, batch = PLAIN.make()
    modes = []

    def stream():
        for _ in range(4):
            modes.append((torch.empty(1).device.type, torch.is_grad_enabled()))
            yield torch.randn(5, 6, device="cpu"), torch.randint(3, (5,), device="cpu")

    torch.manual_seed(9)
    drawn = list(stream())
    expected, _ = moved(LEAST, model, [batch], held_out=drawn)
    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    with torch.device("meta"), torch.no_grad():
        streamed, _ = moved(LEAST, model, [batch], held_out=stream())
    assert torch.equal(values(streamed), values(expected))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert set(modes[4:]) == {("meta", False)}
