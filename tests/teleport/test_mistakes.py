"""Mistakes of a caller: each is told in one sentence, and nothing has changed."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import teleport
from teleport import LevelSet, NullSpace, RandomNullSpace, Rescaling, Symmetry, UnsupportedModel
from teleport._tracing.functions import called
from tests.teleport.methods import CLASSES, after_it, every_method, unchanged, values

LOSSES: dict[str, tuple[Any, type[Exception], str]] = {
    "swapped": (
        lambda batch, model: CLASSES.loss_fn(model, batch),
        TypeError,
        r"loss_fn is called as loss_fn\(model, batch\): this one takes the batch first",
    ),
    "outputs and targets": (
        lambda outputs, targets: F.cross_entropy(outputs, targets),
        TypeError,
        "loss_fn is called with the model and a batch, not with outputs and targets",
    ),
    "three arguments": (
        lambda model, x, y: F.cross_entropy(model(x), y),
        TypeError,
        r"loss_fn is called with two arguments, the model and a batch, and this one takes \(model, x, y\)",
    ),
    "one argument": (lambda model: model, TypeError, r"and this one takes \(model\)"),
}


@every_method
@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_of_other_arguments_is_told(case, row):
    model, batches = CLASSES.make()
    start, (loss_fn, error, said) = values(model), LOSSES[case]
    with pytest.raises(error, match=said):
        row.make()(model, batches, loss_fn)
    assert unchanged(model, start)


def test_an_error_of_the_losss_own_comes_through():
    model, batches = CLASSES.make()

    def loss_fn(net: nn.Module, batch: Any) -> Tensor:
        raise AttributeError("of the caller's own")

    with pytest.raises(AttributeError, match=r"^of the caller's own$"):
        NullSpace()(model, batches, loss_fn)


@every_method
def test_a_batch_on_another_device_is_told(row):
    model, [(x, y)] = CLASSES.make()
    start = values(model)
    for batch in ((x.to("meta"), y.to("meta")), (x, y.to("meta"))):
        with pytest.raises(
            ValueError, match=r"the batch has tensors on .*meta and the model is on cpu: move the batch"
        ):
            row.make()(model, [batch], CLASSES.loss_fn)
    assert unchanged(model, start)


def test_without_a_loss_the_mistakes_are_told_too():
    model, [(x, _)] = CLASSES.make()
    method = teleport.ChangeOfBasis()
    with pytest.raises(ValueError, match=r"the batch has tensors on meta and the model is on cpu: move the batch"):
        method(model, [x.to("meta")])
    with pytest.raises(TypeError, match=r"forward is called with two arguments, .* takes \(net\)"):
        method(model, [x], forward=lambda net: net(x))
    with torch.inference_mode():
        made = [x + 0]
    with pytest.raises(ValueError, match=r"batch 0 was made under torch\.inference_mode"):
        method(model, made)
    with pytest.raises(ValueError, match=r"constraint batch 0 was made under torch\.inference_mode"):
        NullSpace()(model, [x], lambda net, batch: net(batch).square().mean(), constraint=made)


@every_method
def test_a_batch_that_the_loss_moves_may_be_on_another_device(row):
    model, [(x, y)] = CLASSES.make()
    elsewhere = torch.empty(5, device="meta")
    report = row.make()(model, [(x, y, elsewhere)], lambda net, batch: CLASSES.loss_fn(net, batch[:2]))
    assert report.accepted


@every_method
def test_a_model_without_values_is_refused_by_name(row):
    model, batches = CLASSES.make()
    model[4] = model[4].to("meta")
    with pytest.raises(UnsupportedModel, match=r"'4\.weight' is on the device meta, so it has no values"):
        row.make()(model, batches, CLASSES.loss_fn)
    model[4] = nn.LazyLinear(3)
    for call in (row.make(), lambda *given: teleport.preview(row.make(), *given)):
        with pytest.raises(UnsupportedModel, match=r"'4\.weight' has no shape yet: evaluate the model once"):
            call(model, batches, CLASSES.loss_fn)
    model, batches = CLASSES.make()
    with torch.inference_mode():
        model[4] = nn.Linear(24, 3).double()
    with pytest.raises(UnsupportedModel, match=r"'4\.weight' was made under torch\.inference_mode"):
        row.make()(model, batches, CLASSES.loss_fn)


def test_a_quantized_module_is_named():
    model, batches = CLASSES.make(dtype=torch.float32)
    quantize = torch.ao.quantization.quantize_dynamic
    with pytest.raises(ValueError, match=r"no trainable parameter to teleport: '0' is quantized \(Linear\)"):
        NullSpace()(quantize(copy.deepcopy(model), {nn.Linear}), batches, CLASSES.loss_fn)
    model[2] = quantize(nn.Sequential(model[2]), {nn.Linear})[0]
    report = RandomNullSpace()(model, batches, CLASSES.loss_fn)
    assert "its weights are quantized, so they are no parameters and have no gradient: 2 (Linear)" in report.reasons()


@every_method
def test_batches_made_under_inference_mode_are_told(row):
    model, batches = CLASSES.make(batches=2)
    with torch.inference_mode():
        made = [batches[0], (batches[1][0] + 0, batches[1][1])]
    with pytest.raises(ValueError, match=r"batch 1 was made under torch\.inference_mode"):
        row.make()(model, made, CLASSES.loss_fn)


def test_tensors_made_under_inference_mode_are_told_wherever_they_are():
    class Held:
        """A batch that is no container."""

    model, [(x, y)] = CLASSES.make()
    batch = Held()
    with torch.inference_mode():
        batch.x = x + 0
    with pytest.raises(ValueError, match=r"the batch or the model holds a tensor that was made under torch\.inference"):
        NullSpace()(model, [batch], lambda net, each: F.cross_entropy(net(each.x), y))


@every_method
def test_a_whole_data_loader_is_refused(row):
    model, [(x, y)] = CLASSES.make()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=2)
    with pytest.raises(TypeError, match="batches is a whole DataLoader, and a teleport takes few batches"):
        row.make()(model, loader, CLASSES.loss_fn)
    with pytest.raises(TypeError, match="batches must be a list or another iterable of batches, got Tensor"):
        row.make()(model, x, CLASSES.loss_fn)
    assert row.make()(model, list(loader)[:1], CLASSES.loss_fn).accepted
    if isinstance(row.make(), NullSpace):
        with pytest.raises(TypeError, match="constraint is a whole DataLoader"):
            row.make()(model, [(x, y)], CLASSES.loss_fn, constraint=loader)


@every_method
def test_another_default_device_changes_nothing(row):
    plain, batches = CLASSES.make(batches=2)
    model = copy.deepcopy(plain)
    expected = row.make()(plain, batches, CLASSES.loss_fn)
    for choose in (False, True):
        moved, seen = copy.deepcopy(model), []

        def loss_fn(net: nn.Module, batch: Any, seen: list[str] = seen) -> Tensor:
            seen.append(torch.empty(1).device.type)  # the caller's code has the caller's default
            return CLASSES.loss_fn(net, batch)

        if choose:
            torch.set_default_device("meta")
        try:
            with nullcontext() if choose else torch.device("meta"):
                report = row.make()(moved, batches, loss_fn)
                assert torch.empty(1).is_meta
        finally:
            torch.set_default_device(None)
        assert set(seen) == {"meta"}
        assert unchanged(after_it(moved, report), values(after_it(plain, expected)))


def test_elements_that_share_memory_are_told_where_all_parameters_move():
    def make() -> tuple[nn.Module, Any]:
        model, [batch] = CLASSES.make()
        model.register_parameter("scale", nn.Parameter(torch.ones(1).double().expand(3)))
        return model, batch

    def loss_fn(net: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(net(batch[0]) * net.scale, batch[1])

    for method in (LevelSet(), NullSpace(objective="sharpness"), NullSpace(objective="loss_after_step")):
        model, batch = make()
        start = values(model)
        with pytest.raises(UnsupportedModel, match="'scale' has elements that share memory, as if expanded: clone it"):
            method(model, [batch], loss_fn)
        assert unchanged(model, start)
    model, batch = make()
    assert NullSpace(relative_cap=3.0)(model, [batch], loss_fn).accepted  # which moves other parameters


@pytest.mark.parametrize("variant", ["2022", "2024", "corrected"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_symmetry_takes_half_precision(variant, dtype):
    model, batches = CLASSES.make(dtype=dtype)
    report = Symmetry(variant, lr=1e-3, step="fixed", guard="none")(model, batches, CLASSES.loss_fn)
    assert report.batches[0].steps == 8
    assert all(parameter.dtype == dtype for parameter in model.parameters())


def test_a_bias_whose_weight_stays_has_a_reason():
    model, batches = CLASSES.make()
    model[2].weight.requires_grad_(False)
    torch.nn.utils.parametrizations.weight_norm(model[4])
    report = RandomNullSpace()(model, batches, CLASSES.loss_fn)
    assert "it is the bias of a weight that requires no gradient: 2.bias (parameter)" in report.reasons()
    assert "it is the bias of a weight that is computed from other tensors: 4.bias (parameter)" in report.reasons()
    model, batches = CLASSES.make()
    for layer in (model[0], model[2], model[4]):
        layer.weight.requires_grad_(False)
    with pytest.raises(UnsupportedModel, match=r"'0\.bias'.* it is the bias of a weight that requires no gradient"):
        Symmetry()(model, batches, CLASSES.loss_fn)


def test_operations_have_public_names():
    names = {
        torch._grouped_mm: "torch.nn.functional.grouped_mm",
        torch._weight_norm: "torch._weight_norm",
        torch._C._nn.gelu: "torch.nn.functional.gelu",
        torch.Tensor.add_: "torch.Tensor.add_",
        torch._VF.lstm: "torch.lstm",
    }
    assert {called(function) for function in names} == set(names.values())
    private = [
        getattr(torch._C._VariableFunctions, name) for name in dir(torch._C._VariableFunctions) if name[:2] != "__"
    ]
    told = [called(function) for function in private if type(function).__name__ == "builtin_function_or_method"]
    assert len(told) > 500
    assert not [name for name in told if "_VariableFunctions" in name or "._C." in name]


@pytest.mark.parametrize("method", [Rescaling, teleport.ChangeOfBasis])
def test_a_private_operation_is_pinned_by_its_public_name(method):
    model, batches = CLASSES.make()
    torch.nn.utils.parametrizations.weight_norm(model[2])
    assert "torch._weight_norm" in method()(model, batches, CLASSES.loss_fn).reasons()
