"""Random changes of basis on networks of many kinds: the function, the report, the guard, the way back."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from teleport import ChangeOfBasis, Teleported, TeleportReport, UnsupportedModel, load, save, transport_state
from teleport.teleported import function_name
from tests.teleport.networks import Calls, cross_entropy
from tests.teleport.quivers import stack
from tests.teleport.rescalable import cnns, mlps, relative_error


class Residual(nn.Module):
    """A convolutional net with batch norm, a skip connection and any activation."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), activation())
        self.branch = nn.Sequential(
            nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), activation(), nn.Conv2d(5, 6, 1)
        )
        self.last = activation()
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.pool(self.last(x + self.branch(x))).mean((2, 3)))


def residual(activation: type[nn.Module] = nn.ReLU, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """The net, with batch norms that are not new ones, and other data than it is teleported on."""
    torch.manual_seed(1)
    model = Residual(activation)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            value.data += 0.2 * torch.rand_like(value)
    return model.to(dtype), torch.randn(7, 2, 8, 8).to(dtype)


def images(dtype: torch.dtype = torch.float64) -> list[tuple[Tensor]]:
    return [(torch.randn(3, 2, 8, 8).to(dtype),) for _ in range(2)]


def moved(model: nn.Module, start: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.named_parameters() if not torch.equal(value, start[name])}


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def channels(report: TeleportReport) -> dict[str, tuple[int, int, int]]:
    return {layer.name: (layer.free, layer.shared, layer.pinned) for layer in report.layers if layer.dimension}


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    st.one_of(mlps(), cnns()), st.sampled_from(["intra", "inter", "positive", "negative", "centered"]), st.booleans()
)
def test_the_function_stays_on_any_data(made, sampling, teleport):
    model, batch = made
    others = 3 * torch.randn(20, *batch[0].shape[1:]).double()
    before = model(others)
    method = ChangeOfBasis(0.8, sampling, center=2.0, activations="teleport" if teleport else "keep")
    report = method(model, [batch])
    assert report.accepted
    assert relative_error(report.model(others), before) < 1e-10
    assert report.difference < 1e-10


@pytest.mark.parametrize("activations", ["keep", "teleport"])
@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.Tanh])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.12)], ids=str
)
@pytest.mark.parametrize("sampling", ["intra", "inter"])
def test_a_residual_net(activation, activations, sampling, dtype, tolerance):
    model, others = residual(activation, dtype)
    model.eval()
    before = model(others).detach()
    report = ChangeOfBasis(0.5, sampling, activations=activations)(model, images(dtype))
    assert report.accepted
    assert report.no_op == (activations == "keep" and activation is nn.Tanh)
    after = report.model(others).detach()
    assert after.dtype == dtype
    assert float((after - before).abs().max() / before.abs().max()) < tolerance
    rewritten = activations == "teleport" and (sampling == "inter" or activation is nn.Tanh)
    assert isinstance(report.model, Teleported) == rewritten
    assert rewritten or report.model is model


def test_the_report_counts_the_channels():
    model, _ = residual()
    report = ChangeOfBasis()(model, images())
    # standardised: the convolutions before a batch norm; joined: what the skip connection adds
    assert channels(report) == {
        "stem.0.weight": (0, 0, 6),
        "stem.1.weight": (0, 6, 0),
        "branch.0.weight": (0, 0, 5),
        "branch.1.weight": (5, 0, 0),
        "branch.3.weight": (0, 6, 0),
        "head.weight": (0, 0, 3),
    }
    assert report.channels == (5, 12, 14)
    assert {("batch_norm" in why, why == "it is an output"): count for why, count in report.pins.items()} == {
        (True, False): 11,
        (False, True): 3,
    }
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert "batch_norm" in reasons["stem.0.weight"]
    assert reasons["head.weight"]
    assert not reasons["branch.1.weight"]


@pytest.mark.parametrize("train", [True, False])
def test_modes_buffers_keys_and_parameters_are_as_they_were(train):
    model, _ = residual()
    model.train(train)
    model.stem[1].eval()
    modes = [module.training for module in model.modules()]
    keys, start = list(model.state_dict()), values(model)
    identities = [(id(value), value.data_ptr()) for value in (*model.parameters(), *model.buffers())]
    report = ChangeOfBasis()(model, images())
    assert report.model is model
    assert [module.training for module in model.modules()] == modes
    assert [(id(value), value.data_ptr()) for value in (*model.parameters(), *model.buffers())] == identities
    assert list(model.state_dict()) == keys
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, start[name])
    assert report.group.keys() == {dict(model.named_parameters())[name] for name in moved(model, start)}


def test_training_mode_computes_the_same_too():
    model, others = residual()
    plain = copy.deepcopy(model)
    ChangeOfBasis()(model, images())
    assert model.training
    assert relative_error(model(others), plain(others)) < 1e-12
    for (name, old), new in zip(plain.named_buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-12, atol=1e-14, msg=name)


def test_teleports_in_a_row_multiply_and_do_not_nest():
    model, others = residual(nn.Tanh)
    model.eval()
    before = model(others).detach()
    method = ChangeOfBasis(0.5, "inter", activations="teleport")
    first = method(model, images())
    taus = {(each.function, each.call): each.tau.clone() for each in first.model.activations}
    second = method(first.model, images())
    assert second.model is first.model
    assert second.model.module is model
    assert relative_error(second.model(others), before) < 1e-11
    sites = {(function_name(site.function), site.call): site for site in second.change.quiver.sites}
    for each in second.model.activations:
        site = sites[each.function, each.call]
        own = second.change.tau[site.classes]
        own = own.sign() if site.homogeneous else own  # the max pooling's
        torch.testing.assert_close(each.tau, taus[each.function, each.call] * own)
    second.change.inverse().apply(second.model)
    first.change.inverse().apply(second.model)
    assert second.model.activations == []
    assert relative_error(model(others), before) < 1e-11


def test_a_rewritten_model_is_changed_in_place_as_well():
    model, others = residual()
    model.eval()
    before = model(others).detach()
    rewritten = ChangeOfBasis(0.5, "inter", activations="teleport")(model, images()).model
    held = [each.tau.clone() for each in rewritten.activations]
    report = ChangeOfBasis(0.5)(rewritten, images())
    assert report.model is rewritten
    assert not report.no_op
    assert relative_error(rewritten(others), before) < 1e-11
    assert all(torch.equal(each.tau, tau) for each, tau in zip(rewritten.activations, held, strict=True))
    assert {layer.name for layer in report.layers if layer.dimension} <= dict(model.named_parameters()).keys()


def test_undone_by_the_inverse_and_saved(tmp_path):
    model, others = residual(nn.ELU)
    model.eval()
    start, before = values(model), model(others).detach()
    report = ChangeOfBasis(0.9, "inter", activations="teleport")(model, images())
    save(tmp_path / "model.pt", report.model, report.change)
    loaded, change = load(tmp_path / "model.pt", Residual(nn.ELU).double().eval())
    assert torch.equal(loaded(others), report.model(others))
    for teleported, element in ((report.model, report.change), (loaded, change)):
        back = element.inverse().apply(teleported)
        assert relative_error(back(others), before) < 1e-12
        torch.testing.assert_close(values(back.module), start, rtol=1e-13, atol=0)


class Wide(nn.Module):
    """Two inputs by name, a mapping of outputs, and a branch that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.unused = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 4)
        self.middle, self.head, self.other = nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(4, 1)

    def forward(self, left: Tensor, *, right: Tensor) -> dict[str, Any]:
        joined = torch.relu(self.left(left) + self.right(right))
        head = self.head(F.relu(self.middle(joined)))
        return {"head": head, "parts": (self.other(joined), {"index": head.argmax(1)})}


@pytest.mark.parametrize("activations", ["keep", "teleport"])
def test_several_inputs_and_outputs(activations):
    model = Wide().double()
    batch = {"left": torch.randn(6, 3).double(), "right": torch.randn(6, 2).double()}

    def forward(net: nn.Module, batch: dict[str, Tensor]) -> Any:
        return net(batch["left"], right=batch["right"])

    before = forward(model, batch)
    unused = values(model.unused)
    report = ChangeOfBasis(0.9, "inter", activations=activations)(model, [batch], forward=forward)
    after = forward(report.model, batch)
    assert report.accepted
    assert channels(report)["left.weight"] == (0, 4, 0)
    assert channels(report)["middle.weight"] == (5, 0, 0)
    assert relative_error(after["head"], before["head"]) < 1e-12
    assert relative_error(after["parts"][0], before["parts"][0]) < 1e-12
    assert not moved(model.unused, unused)


def test_inputs_without_a_tuple():
    model = stack(5, 7, 3)
    assert ChangeOfBasis()(model, [torch.randn(4, 5).double()]).difference < 1e-13


def test_nothing_free_is_a_no_op_with_its_reason():
    model = nn.Sequential(nn.Linear(5, 4), nn.Softmax(1), nn.Linear(4, 2)).double()
    start = values(model)
    report = ChangeOfBasis()(model, [torch.randn(4, 5).double()])
    assert (report.no_op, report.steps, report.channels) == (True, 0, (0, 0, 6))
    assert report.batches[0].stopped == "nothing moves"
    assert "softmax" in report.reasons()
    assert not moved(model, start)


class WithHead(nn.Module):
    """A net with an auxiliary head that training alone calls."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)
        self.auxiliary, self.activation, self.dropout = nn.Linear(6, 3), activation(), nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Any:
        hidden = self.activation(self.first(x))
        out = self.norm(self.last(self.activation(self.middle(hidden))))
        return (out, self.auxiliary(hidden)) if self.training else out


@pytest.mark.parametrize("activations", ["keep", "teleport"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_what_training_alone_reaches_is_kept_too(activation, activations):
    model = WithHead(activation).double()
    plain, x = copy.deepcopy(model), torch.randn(9, 5).double()
    statistics = [buffer.clone() for buffer in model.buffers()]
    report = ChangeOfBasis(0.9, activations=activations)(model, [x])
    assert report.no_op == (activations == "keep" and activation is nn.Tanh)
    assert all(torch.equal(old, new) for old, new in zip(statistics, model.buffers(), strict=True))
    assert report.model.training
    for expected, value in zip(plain(x), report.model(x), strict=True):
        assert relative_error(value, expected) < 1e-12
    assert relative_error(report.model.eval()(x), plain.eval()(x)) < 1e-12


def test_activations_of_an_auxiliary_head_are_no_guess():
    model = WithHead(nn.Tanh).double()
    model.auxiliary = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    start = values(model)
    with pytest.raises(UnsupportedModel, match="does not make the same ones in training as in evaluation; take"):
        ChangeOfBasis(activations="teleport")(model, [torch.randn(9, 5).double()])
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


class Drifting(nn.Module):
    """A model whose outputs grow with the number of its evaluations."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.inner, self.calls = stack(5, 7, 3, activation=activation), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x) + self.calls


@pytest.mark.parametrize("again", [False, True])
def test_outputs_that_move_are_undone(again):
    model = Drifting(nn.Tanh)
    batch = torch.randn(4, 5).double()
    method = ChangeOfBasis(0.5, "inter", activations="teleport")
    if again:
        model = ChangeOfBasis(0.5, "inter", activations="teleport", guard="none")(model, [batch]).model
    start = values(unwrapped) if (unwrapped := getattr(model, "module", model)) else {}
    taus = [each.tau for each in getattr(model, "activations", [])]
    report = method(model, [batch])
    assert (report.accepted, report.no_op, report.steps) == (False, True, 0)
    assert report.batches[0].stopped == "rolled back"
    assert "of the largest, more than the tolerance 0.001" in report.batches[0].reason
    assert not moved(unwrapped, start)
    assert report.model is model
    assert [each.tau for each in getattr(model, "activations", [])] == taus
    assert bool((report.change.tau == 1).all())
    assert len(report.group) == 0


@pytest.mark.parametrize("with_loss", [False, True])
def test_an_exception_puts_parameters_and_activations_back(with_loss):
    batch = (torch.randn(4, 5).double(), torch.arange(4) % 3)
    method = ChangeOfBasis(0.5, "inter", activations="teleport")
    for fails in range(1, 8):
        torch.manual_seed(fails)
        plain = stack(5, 7, 3, activation=nn.Tanh)
        model = method(plain, [batch]).model
        start, taus, calls = values(plain), [each.tau for each in model.activations], []

        def evaluate(net: nn.Module, batch: Any, fails: int = fails, calls: list[int] = calls) -> Tensor:
            calls.append(1)
            if len(calls) == fails:
                raise KeyError("on purpose")
            return cross_entropy(net, batch) if with_loss else net(batch[0])

        arguments = {"loss_fn" if with_loss else "forward": evaluate}
        if fails <= 3:
            with pytest.raises(KeyError):
                method(model, [batch], **arguments)
        else:
            try:
                method(model, [batch], **arguments)
            except KeyError:
                pass
            else:
                continue
        assert not moved(plain, start)
        assert [each.tau for each in model.activations] == taus


def test_one_capture_serves_many_teleports():
    model, others = residual()
    model.eval()
    before = model(others).detach()
    method = ChangeOfBasis(0.5)
    quiver = method.capture(model, images()[0])
    changes = [method.sample(quiver) for _ in range(5)]
    for change in changes:
        assert change.apply(model) is model
        assert relative_error(model(others), before) < 1e-12
    assert len({float(change.tau.sum()) for change in changes}) == 5
    other = copy.deepcopy(model)
    method.sample(quiver).apply(other)  # one like it
    assert relative_error(other(others), before) < 1e-12


def test_draws_are_the_seeds_or_a_generators():
    def taus(method: ChangeOfBasis, **options: Any) -> list[float]:
        return [float(method(stack(5, 7, 3), batches, **options).change.tau.sum()) for _ in range(2)]

    batches = [torch.randn(4, 5).double()]
    first = taus(ChangeOfBasis(seed=3))
    torch.manual_seed(99)
    assert taus(ChangeOfBasis(seed=3)) == first
    assert first[0] != first[1]
    assert not set(taus(ChangeOfBasis(seed=4))) & set(first)
    given = [taus(ChangeOfBasis(seed=seed), generator=torch.Generator().manual_seed(3)) for seed in (3, 4)]
    assert given == [first, first]


def test_channels_before_relu_stay_positive_where_activations_are_kept():
    model, _ = residual()
    report = ChangeOfBasis(0.5, "negative")(model, images())
    assert bool((report.change.tau > 0).all())
    linear = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).double()
    tau = ChangeOfBasis(0.5, "negative")(linear, [torch.randn(4, 5).double()]).change.tau
    assert int((tau < 0).sum()) == 7


def test_with_a_loss_it_is_measured():
    model = stack(5, 7, 6, 3)
    batches = [(torch.randn(4, 5).double(), torch.arange(4) % 3) for _ in range(2)]
    gradients = torch.autograd.grad(cross_entropy(model, batches[1]), list(model.parameters()))
    report = ChangeOfBasis(0.9)(model, batches, cross_entropy)
    assert report.loss_after == pytest.approx(report.loss_before, rel=1e-12)
    factors = [report.group.get(parameter, torch.ones(())) for parameter in model.parameters()]
    pairs = zip(gradients, factors, strict=True)
    expected = math.sqrt(sum(float((gradient / factor).square().sum()) for gradient, factor in pairs))
    assert report.batches[1].gradient_norm_after == pytest.approx(expected, rel=1e-10)
    assert report.difference is None


def test_a_loss_that_reads_the_weights_itself_is_not_fooled():
    model = stack(5, 7, 3)
    batch = (torch.randn(4, 5).double(), torch.arange(4) % 3)

    def penalised(net: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(net, batch) + sum(parameter.square().sum() for parameter in net.parameters())

    before = float(penalised(model, batch).detach())
    ChangeOfBasis(0.9)(model, [batch], penalised)
    assert float(penalised(model, batch).detach()) == pytest.approx(before, rel=1e-10)


def test_momentum_is_carried_along():
    """As the definition has it: gradients of the past, taken in the new basis, are those divided by the factors."""
    model = stack(5, 7, 6, 3)
    batch = (torch.randn(4, 5).double(), torch.arange(4) % 3)
    optimizer = torch.optim.Adam(model.parameters())
    cross_entropy(model, batch).backward()
    optimizer.step()
    held = {parameter: dict(optimizer.state[parameter]) for parameter in model.parameters()}
    held = {parameter: {key: value.clone() for key, value in state.items()} for parameter, state in held.items()}
    report = ChangeOfBasis(0.5)(model, [batch], cross_entropy)
    transport_state(optimizer, report.group)
    for parameter in model.parameters():
        factors = report.group.get(parameter, torch.ones(()).double())
        for key, power in (("exp_avg", 1), ("exp_avg_sq", 2), ("step", 0)):
            expected = held[parameter][key] / factors**power if power else held[parameter][key]
            torch.testing.assert_close(optimizer.state[parameter][key], expected, rtol=1e-13, atol=0)


def test_activations_are_teleported_only_of_a_model_that_is_called():
    model = Calls(lambda net, x: net.first(x), first=nn.Linear(5, 3)).double()
    batch = (torch.randn(4, 5).double(), torch.arange(4) % 3)
    with pytest.raises(ValueError, match='activations="teleport" needs an evaluation that calls the model itself'):
        ChangeOfBasis(activations="teleport")(
            model, [batch], lambda net, batch: F.cross_entropy(getattr(net, "module", net).first(batch[0]), batch[1])
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"range": 1.0}, "range must be below 1"),
        ({"sampling": "outer"}, "sampling must be one of intra"),
        ({"activations": "all"}, "activations must be one of keep, teleport"),
        ({"guard": "some"}, "guard must be one of transaction, none"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChangeOfBasis(**arguments)


def test_bad_calls():
    model = stack(5, 7, 3)
    with pytest.raises(ValueError, match="at least one batch"):
        ChangeOfBasis()(model, [])
    with pytest.raises(ValueError, match="forward returned no tensor of numbers"):
        ChangeOfBasis()(model, [torch.randn(4, 5).double()], forward=lambda net, x: net(x).argmax(1))


@pytest.mark.parametrize(("activations", "sampling"), [("keep", "intra"), ("teleport", "inter")])
def test_attention_is_free_by_its_queries_and_values(activations, sampling):
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu", norm_first=True)
    model = nn.Sequential(nn.Linear(5, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 3))
    model = model.double().eval()
    for value in model.parameters():
        value.data += 0.1 * torch.rand_like(value)
    x = torch.randn(3, 4, 5).double()
    before = model(x).detach()
    report = ChangeOfBasis(0.9, sampling, activations=activations)(model, [torch.randn(3, 4, 5).double()])
    assert relative_error(report.model(x), before) < 1e-11
    attention = channels(report)["1.layers.0.self_attn.in_proj_weight"]
    assert sum(attention) == 24
    assert attention[2] < 24
    feed_forward = channels(report)["1.layers.0.linear1.weight"]
    assert feed_forward == ((12, 0, 0) if activations == "teleport" else (0, 0, 12))
