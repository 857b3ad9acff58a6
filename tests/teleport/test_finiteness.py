"""What is infinite or NaN is told by name, and nothing moves then; zero weights are not said to move."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import Balance, ChangeOfBasis, LevelSet, NullSpace, PseudoTeleport, RandomNullSpace, Rescaling, Symmetry
from tests.teleport.methods import CLASSES, after_it, every_method, inter_teleport, values

COMMON = (Balance, ChangeOfBasis, PseudoTeleport)
"""Methods that make one move for all batches."""


def set_element(module: str, name: str, value: float) -> Any:
    def spoil(model: nn.Module, batch: Any) -> None:
        with torch.no_grad():
            model.get_submodule(module).get_parameter(name).view(-1)[3] = value

    return spoil


def set_input(value: float) -> Any:
    def spoil(model: nn.Module, batch: Any) -> None:
        batch[0][0, 0] = value

    return spoil


SPOILED = {
    "an infinite bias": (set_element("2", "bias", math.inf), r"not finite before any step: parameter '2\.bias'"),
    "a bias of NaN": (set_element("0", "bias", math.nan), r"parameter '0\.bias' \(loss nan\)"),
    "an infinite weight": (set_element("4", "weight", -math.inf), r"parameter '4\.weight'"),
    "an infinite input": (set_input(math.inf), r"not finite before any step: values of the batch \(loss nan\)"),
    "an input of NaN": (set_input(math.nan), r"not finite before any step: values of the batch \(loss nan\)"),
}

LOSSES = {
    "a loss of NaN": (lambda model: math.nan, r"not finite before any step: the loss \(loss nan\)"),
    "an infinite loss": (lambda model: math.inf, r"not finite before any step: the loss \(loss inf\)"),
    "a gradient of NaN": (
        lambda model: (model[2].bias - model[2].bias.detach()).abs().sqrt().sum(),
        r"not finite before any step: the gradient of '2\.bias'",
    ),
    "an infinite norm": (
        lambda model: 1e200 * (model[2].bias - model[2].bias.detach()).sum(),
        "not finite before any step: the gradient norm is inf",
    ),
}


def same_bits(model: nn.Module, start: dict[str, Tensor]) -> bool:
    """NaN equals NaN."""
    return all(
        torch.equal(value.view(torch.int64), start[name].view(torch.int64)) for name, value in values(model).items()
    )


@every_method
@pytest.mark.parametrize("case", SPOILED)
def test_a_point_that_is_not_finite_is_refused_by_name(case, row):
    model, batches = CLASSES.make(batches=2)
    spoil, said = SPOILED[case]
    spoil(model, batches[0])
    start, method = values(model), row.make()
    report = method(model, batches[:1] if "input" in case else batches, CLASSES.loss_fn)
    assert same_bits(model, start)
    assert report.no_op
    assert not report.accepted
    assert {batch.stopped for batch in report.batches} == {"not finite"}
    assert all(re.search(said, batch.reason) for batch in report.batches)
    assert "not finite (" in str(report)


@every_method
@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_or_gradient_that_is_not_finite_is_refused_by_name(case, row):
    model, batches = CLASSES.make(batches=2)
    start, (term, said) = values(model), LOSSES[case]
    report = row.make()(model, batches, lambda net, batch: CLASSES.loss_fn(net, batch) + term(net))
    assert same_bits(model, start)
    assert not report.accepted
    assert all(re.search(said, batch.reason) for batch in report.batches)


@every_method
def test_a_batch_that_is_finite_is_teleported_beside_one_that_is_not(row):
    """Methods with one move for all batches refuse them all."""
    model, batches = CLASSES.make(batches=2)
    start = values(model)
    set_input(math.nan)(model, batches[0])
    report = row.make()(model, batches, CLASSES.loss_fn)
    if isinstance(row.make(), COMMON):
        assert not report.accepted
        assert same_bits(model, start)
    else:
        assert [batch.accepted for batch in report.batches] == [False, True]
        assert not same_bits(model, start)
        alone, _ = CLASSES.make(batches=2)
        if not isinstance(row.make(), RandomNullSpace | Rescaling):  # whose moves depend on the number of batches
            row.make()(alone, batches[1:], CLASSES.loss_fn)
            assert all(torch.allclose(value, values(alone)[name]) for name, value in values(model).items())


@pytest.mark.parametrize("make", [ChangeOfBasis, inter_teleport], ids=["keep", "teleport"])
@pytest.mark.parametrize("case", SPOILED)
def test_without_a_loss_outputs_that_are_not_finite_are_refused(case, make):
    model, [batch] = CLASSES.make()
    SPOILED[case][0](model, batch)
    start = values(model)
    report = make()(model, [batch[0]])
    assert same_bits(after_it(model, report), start)
    assert (report.accepted, report.no_op, report.batches[0].stopped) == (False, True, "not finite")
    said = "values of the batch" if "input" in case else r"parameter '\d\.(bias|weight)'"
    assert re.search(said, report.batches[0].reason)


def test_a_pseudo_teleport_to_values_that_are_not_finite_is_undone():
    """A barrier around the outputs at the start: the logarithm of a negative number is NaN."""
    model, [batch] = CLASSES.make()
    start, outputs = values(model), model(batch[0]).detach()

    def barrier(net: nn.Module, given: Any) -> Tensor:
        moved = net(given[0]) - outputs
        return CLASSES.loss_fn(net, given) - torch.log1p(-1e6 * moved.square().sum())

    report = PseudoTeleport()(model, [batch], barrier)
    assert report.batches[0].reason.startswith("not finite: loss nan")
    assert (report.accepted, report.no_op, report.batches[0].stopped) == (False, True, "rolled back")
    assert same_bits(model, start)


def test_masked_logits_are_no_reason_to_refuse():
    model, [batch] = CLASSES.make()
    mask = torch.eye(5, 3).bool()
    report = ChangeOfBasis()(model, [batch[0]], forward=lambda net, x: net(x).masked_fill(mask, -math.inf))
    assert report.accepted
    assert not report.no_op
    assert report.difference < 1e-12


def test_a_parameter_that_does_not_move_may_hold_anything():
    """A frozen mask of infinities, which the loss does not show."""
    model, [batch] = CLASSES.make()
    model.mask = nn.Parameter(torch.full((3,), -math.inf), requires_grad=False)
    report = NullSpace(relative_cap=3.0)(model, [batch], CLASSES.loss_fn)
    assert report.accepted
    assert not report.no_op


def mish_beyond_its_range() -> tuple[nn.Module, Any]:
    """In single precision ``exp`` of a pre-activation above 88.7 overflows in the second derivative."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Mish(), nn.Linear(16, 16), nn.Mish(), nn.Linear(16, 3))
    inputs = torch.randn(3, 4)
    inputs[0] *= 300
    return model, inputs


SECOND = {
    "forward each": NullSpace(relative_cap=3.0, forward="each"),
    "shortest": NullSpace(path="shortest", forward="each"),
    "full steps": NullSpace(step="fixed", guard="none", forward="each"),
    "curvature": NullSpace(objective="curvature"),
    "sharpness": NullSpace(objective="sharpness", guard="none"),
    "level set": LevelSet(steps=3),
    "no guard": LevelSet(steps=3, guard="none"),
    "symmetry 2024": Symmetry("2024"),
    "symmetry 2024 as published": Symmetry("2024", step="fixed", guard="none"),
    "orbit": teleport.Orbit(lambda theta, w: {"2.weight": theta.exp() * w["2.weight"]}, guard="none"),
}


@pytest.mark.parametrize("name", SECOND)
def test_a_second_derivative_that_is_not_finite_is_told_by_name(name):
    model, inputs = mish_beyond_its_range()
    start = copy.deepcopy(model.state_dict())
    report = SECOND[name](model, [inputs], lambda net, x: net(x).square().mean())
    [batch] = report.batches
    assert (batch.stopped, report.accepted, report.no_op) == ("not finite", False, True)
    assert re.fullmatch(
        r"not finite: the second derivative by '\d\.(weight|bias)'.*, in the backward pass of Mish", batch.reason
    )
    assert all(torch.equal(value, start[key]) for key, value in model.state_dict().items())
    assert not torch.is_anomaly_enabled()


def test_with_a_frozen_forward_pass_a_second_derivative_of_an_activation_is_not_needed():
    """No pre-activation changes; the steps are those in double precision, in which nothing overflows."""
    model, inputs = mish_beyond_its_range()
    exact = copy.deepcopy(model).double()
    method = NullSpace(lr=0.01, steps=2, step="fixed")
    report = method(model, [inputs], lambda net, x: net(x).square().mean())
    expected = method(exact, [inputs.double()], lambda net, x: net(x).square().mean())
    assert (report.accepted, report.steps) == (True, expected.steps)
    assert report.gradient_norm_after == pytest.approx(expected.gradient_norm_after, rel=1e-3)
    for one, other in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-5)


def test_a_direction_of_ordinary_size_whose_sum_overflows_is_finite():
    large = torch.full((10,), 1e38)
    assert teleport._engine.finiteness.all_finite([large, torch.ones(2).to_sparse(), torch.ones(0)])
    assert not teleport._engine.finiteness.all_finite([torch.ones(2), torch.tensor([1.0, math.nan])])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_of_every_layout_and_precision_are_read():
    bad = torch.tensor([[0.0, math.inf], [1.0, 2.0]])
    for good, other in ((torch.ones(2, 2), bad), (torch.ones(2, 2).to_sparse(), bad.to_sparse_csr())):
        assert teleport._engine.finiteness.all_finite([good])
        assert not teleport._engine.finiteness.all_finite([other])
    for layout in (torch.jagged, torch.strided):
        nested = torch.nested.nested_tensor([torch.ones(2), torch.tensor([math.nan])], layout=layout)
        assert not teleport._engine.finiteness.all_finite([nested])
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.complex64, torch.int8, torch.bool):
        assert teleport._engine.finiteness.all_finite([torch.ones(3).to(dtype)])
    assert not teleport._engine.finiteness.all_finite([torch.tensor([math.nan]).to(torch.float8_e4m3fn)])
    assert not teleport._engine.finiteness.all_finite([torch.tensor([complex(0, math.inf)])])


ZEROED = {
    "all": ("0.", "2.", "4."),
    "the first layer": ("0.",),
    "the second layer": ("2.",),
    "the last weight": ("4.weight",),
    "all weights but the last": ("0.weight", "2.weight"),
}


@pytest.mark.parametrize(
    "make", [Rescaling, lambda: ChangeOfBasis(sampling="positive"), inter_teleport, PseudoTeleport]
)
@pytest.mark.parametrize("case", ZEROED)
def test_a_report_tells_of_no_zero_weight_that_it_moved(case, make):
    model, batches = CLASSES.make()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(ZEROED[case]):
                parameter.zero_()
    start = values(model)
    report = make()(model, batches, CLASSES.loss_fn)
    moved = {name for name, value in values(model).items() if not torch.equal(value, start[name])}
    told = {layer.name for layer in report.layers if layer.relative_change}
    assert told <= moved
    assert report.no_op == (not moved)
    assert all(layer.reason for layer in report.layers if not layer.relative_change)
    if case == "all":
        assert not moved


@pytest.mark.parametrize("path", ["shortest", "least_drift"])
@pytest.mark.parametrize("case", SPOILED)
def test_the_straight_ways_refuse_what_plain_steps_refuse(case, path):
    model, batches = CLASSES.make(batches=1)
    options = {"held_out": CLASSES.make(batches=2)[1]} if path == "least_drift" else {}
    spoil, said = SPOILED[case]
    spoil(model, batches[0])
    start = values(model)
    report = NullSpace(path=path)(model, batches, CLASSES.loss_fn, **options)
    assert same_bits(model, start)
    assert (report.accepted, report.batches[0].stopped) == (False, "not finite")
    assert re.search(said, report.batches[0].reason)
