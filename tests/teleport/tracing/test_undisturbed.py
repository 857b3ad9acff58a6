"""A teleport leaves no trace besides the moved parameters, whether it ends well or not."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport import NullSpace, representations
from teleport._tracing.random_state import RandomState
from teleport._tracing.undisturbed import undisturbed
from tests.teleport.networks import WIDTH, Calls, cross_entropy, mlp


class Counting(nn.Module):
    """Counts its calls in a buffer that it replaces and in one that it changes in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("changed", torch.zeros(()))
        self.register_buffer("absent", None)

    def forward(self, inputs):
        self.replaced = self.replaced + 1
        self.changed += 1
        return inputs


class Failing(Exception):
    """What the loss raises on purpose."""


def model_of_all_kinds():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(6, WIDTH),
        nn.BatchNorm1d(WIDTH),
        nn.Dropout(0.5),
        Counting(),
        nn.Linear(WIDTH, WIDTH),
        nn.Tanh(),
        mlp(),
    )
    model[-1][0] = nn.Linear(WIDTH, WIDTH)
    model.train()
    model[1].eval()  # a mixed state, to be found as it was
    model[-1][0].bias.requires_grad_(False)
    cross_entropy(model, BATCH).backward()
    return model


BATCH = (torch.linspace(-1, 1, 24).reshape(4, 6), torch.arange(4) % 3)


def state_of(model):
    return {
        "modes": [module.training for module in model.modules()],
        "buffers": {name: (id(value), value.clone()) for name, value in model.named_buffers()},
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "names": [name for name, _ in model.named_parameters()],
        "random": torch.random.get_rng_state(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "attention": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()),
        "deterministic": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.backends.cudnn.enabled),
    }


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def test_everything_but_the_moved_parameters_is_as_it_was():
    model = model_of_all_kinds()
    before = state_of(model)
    report = NullSpace(lr=1.0, relative_cap=3.0)(model, [BATCH, BATCH], cross_entropy)
    assert not report.no_op
    assert_same(state_of(model), before)


@pytest.mark.parametrize("call", [1, 2, 3, 5, 6])
def test_after_an_exception_the_parameters_are_restored_too(call):
    model = model_of_all_kinds()
    values = copy.deepcopy(model.state_dict())
    before = state_of(model)
    calls = []

    def loss(net, batch):
        calls.append(1)
        if len(calls) == call:
            raise Failing
        return cross_entropy(net, batch)

    with pytest.raises(Failing):
        NullSpace(lr=1.0, steps=3, lr_unit="absolute", relative_cap=None)(model, [BATCH, BATCH], loss)
    assert len(calls) == call
    assert_same(state_of(model), before)
    assert_same(dict(model.state_dict()), dict(values))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_called_with_gradients_disabled(mode):
    with_gradients, without = model_of_all_kinds(), model_of_all_kinds()
    NullSpace(lr=1.0, relative_cap=3.0)(with_gradients, [BATCH], cross_entropy)
    with mode():
        report = NullSpace(lr=1.0, relative_cap=3.0)(without, [BATCH], cross_entropy)
        assert not torch.is_grad_enabled()
    assert not report.no_op
    assert_same(dict(without.state_dict()), dict(with_gradients.state_dict()))


def test_batch_norm_runs_on_its_statistics_and_dropout_is_off():
    """The loss that is kept is the evaluated one."""
    model = model_of_all_kinds()
    expected = float(cross_entropy(copy.deepcopy(model).eval(), BATCH).detach())
    report = NullSpace(lr=1.0, relative_cap=3.0)(model, [BATCH], cross_entropy)
    assert report.loss_before == pytest.approx(expected, rel=1e-6)
    assert float(cross_entropy(copy.deepcopy(model).eval(), BATCH).detach()) == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_draws_random_numbers_is_one_function():
    """Functional dropout is on by default, whatever the module's mode."""
    model = Calls(
        lambda net, x: net.last(F.dropout(torch.tanh(net.middle(F.dropout(torch.tanh(net.first(x)), 0.3))), 0.3)),
        first=nn.Linear(6, WIDTH),
        middle=nn.Linear(WIDTH, WIDTH),
        last=nn.Linear(WIDTH, 3),
    ).double()
    batch = (BATCH[0].double(), BATCH[1])
    state = torch.random.get_rng_state()
    report = NullSpace(lr=1.0, steps=3, relative_cap=5.0)(model, [batch], cross_entropy)
    assert torch.equal(torch.random.get_rng_state(), state)
    losses = [record.loss for record in report.batches[0].trace]
    assert len(losses) > 1
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-12)


def test_attention_dropout_is_the_same_when_the_heads_are_computed():
    """The attention in training mode, which its own loss asks for: later layers must see the very same inputs."""
    model = Calls(
        lambda net, x: net.last(torch.tanh(net.attention(*[torch.tanh(net.first(x))] * 3)[0]).mean(1)),
        first=nn.Linear(6, WIDTH),
        attention=nn.MultiheadAttention(WIDTH, 4, dropout=0.4, batch_first=True),
        last=nn.Linear(WIDTH, 3),
    ).double()
    batch = (torch.randn(4, 2, 6).double(), BATCH[1])

    def loss(net, batch):
        net.train()
        return cross_entropy(net, batch)

    report = NullSpace(lr=1.0, steps=3, relative_cap=5.0)(model, [batch], loss)
    losses = [record.loss for record in report.batches[0].trace]
    assert {layer.name for layer in report.layers if layer.relative_change > 1e-9} >= {"attention.out_proj.weight"}
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-11)


def test_padded_tokens_count_in_every_evaluation():
    """The fast path of a frozen encoder would drop them; it is off while the layers' inputs are traced."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=True).requires_grad_(False)
    model = nn.ModuleDict({"encoder": encoder, "middle": nn.Linear(8, 8), "last": nn.Linear(8, 3)}).eval()
    padding = torch.tensor([[False, False, True], [False, True, True]])

    def loss(net, batch):
        encoded = net["encoder"](batch, src_key_padding_mask=padding)
        return torch.tanh(net["last"](torch.tanh(net["middle"](encoded)))).square().mean()

    batch = torch.randn(2, 3, 8)
    slow = float(loss(model, batch.clone().requires_grad_()).detach())  # gradients keep it off the fast path
    report = NullSpace(lr=1.0, steps=2)(model, [batch], loss)
    assert report.loss_before == pytest.approx(slow, rel=1e-5)
    assert report.batches[0].accepted


def test_an_embedding_that_renormalizes_its_vectors_in_the_forward_pass_is_restored():
    model = nn.Sequential(nn.Embedding(5, WIDTH, max_norm=0.1), mlp())
    model[1][0] = nn.Linear(WIDTH, WIDTH)
    before = model[0].weight.detach().clone()
    report = NullSpace(lr=1.0, relative_cap=3.0)(model, [(torch.arange(4), torch.arange(4) % 3)], cross_entropy)
    assert not report.no_op
    assert torch.equal(model[0].weight, before)


def test_reading_representations_leaves_no_trace():
    model = model_of_all_kinds()
    values, before = copy.deepcopy(model.state_dict()), state_of(model)
    representations(model, [BATCH], cross_entropy)
    assert_same(state_of(model), before)
    assert_same(dict(model.state_dict()), dict(values))


def test_restart_gives_the_same_numbers_again():
    def work(state):
        first = torch.rand(3)
        state.restart()
        return first, torch.rand(3)

    first, again = undisturbed(mlp(), work)
    assert torch.equal(again, first)


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator")
def test_random_numbers_of_the_accelerator_are_restarted_and_restored():
    device = torch.accelerator.current_accelerator()
    model = mlp().to(device)
    expected = torch.rand(3, device=device)
    state = RandomState(model.parameters())
    first = torch.rand(3, device=device)
    state.restore()

    def work(state):
        assert torch.equal(torch.rand(3, device=device), first)
        state.restart()
        assert torch.equal(torch.rand(3, device=device), first)

    undisturbed(model, work)
    assert torch.equal(torch.rand(3, device=device), first)
    assert not torch.equal(first, expected)


def test_statistics_that_batch_norm_writes_without_a_version_change_are_restored():
    norm = nn.BatchNorm1d(4)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}

    def work(state):
        version = norm.running_mean._version
        F.batch_norm(torch.randn(8, 4), norm.running_mean, norm.running_var, training=True)
        assert norm.running_mean._version == version
        assert not torch.equal(norm.running_mean, before["running_mean"])

    undisturbed(norm, work)
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
