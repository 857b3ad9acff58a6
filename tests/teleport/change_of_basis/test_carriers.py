"""What optimizers remember, carried through permutations, rotations and matrices: the training goes on as if unmoved.

Steps, a move with its state, and more steps end where all steps without the move end, moved afterwards: for each
optimizer whose steps commute with the group. Double precision.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import ChangeOfBasis, Rescaling, transport_state
from tests.teleport.symmetry_networks import Attention, Images, Rotatable
from tests.teleport.vision import torchvision

Make = Callable[[Any], torch.optim.Optimizer]


class Tower(nn.Module):
    """Linear maps between the layers, so that general matrices act."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Linear(6, 7), nn.SiLU())
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


class Orthogonalised(torch.optim.Optimizer):
    """Muon in the precision of the parameters."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                buffer.mul_(0.9).add_(parameter.grad)
                factor = buffer / buffer.norm()
                for _ in range(5):
                    gram = factor @ factor.mT
                    factor = 3.4445 * factor + (-4.775 * gram + 2.0315 * gram @ gram) @ factor
                parameter.sub_(factor, alpha=group["lr"])


OPTIMIZERS: dict[str, Make] = {
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, dampening=0.0),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01),
    "radam": lambda p: torch.optim.RAdam(p, 0.01),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.02),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.005, momentum=0.9, centered=True),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.5),
    "asgd": lambda p: torch.optim.ASGD(p, 0.05, t0=2),
    "rprop": lambda p: torch.optim.Rprop(p, 0.001),
}
ROTATED = ("momentum", "nesterov", "asgd")
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "tower": (Tower, (5,)),
    "attention": (Attention, (3, 5)),
    "grouped rotary": (lambda: Attention(4, 2, rotary=True), (3, 5)),
    "images": (Images, (3, 6, 6)),
    "rotatable": (Rotatable, (5,)),
}


def language_model(name: str) -> nn.Module:
    """transformers' own Llama of two layers with grouped queries, or GPT-2."""
    torchvision()  # which transformers imports
    transformers = pytest.importorskip("transformers")
    if name == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 16}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=11, **sizes))
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "max_position_embeddings": 16}
    config = transformers.LlamaConfig(vocab_size=11, num_attention_heads=4, num_key_value_heads=2, **sizes)
    return transformers.LlamaForCausalLM(config)


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    if batch.is_floating_point():
        return model(batch).square().mean()
    return model(input_ids=batch, labels=batch, use_cache=False).loss


def inputs_of(name: str) -> list[Tensor]:
    """Six batches."""
    if name not in NETWORKS:
        return list(torch.randint(11, (6, 3, 8)))
    return list(torch.randn(6, 12, *NETWORKS[name][1], dtype=torch.float64))


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = (NETWORKS[name][0]() if name in NETWORKS else language_model(name)).double()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 0.5, 0.1)  # a bias of zeros would hide whether it moves
    return model.eval()


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Tensor], first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        loss_of(model, batches[step % len(batches)]).backward()
        optimizer.step()


def begun(name: str, make: Make) -> tuple[nn.Module, torch.optim.Optimizer, list[Tensor]]:
    """A network after four steps; without the keys' bias, whose gradient is rounding noise: softmax does not see it."""
    model, batches = network_of(name), inputs_of(name)
    optimizer = make([parameter for each, parameter in model.named_parameters() if each != "key.bias"])
    steps(model, optimizer, batches, 0, 4)
    return model, optimizer, batches


def errors(name: str, make: Make, group: str, carry: bool = True) -> Iterator[float]:
    """Of each parameter, how far the two ends differ, relative to the largest change in the later steps."""
    model, optimizer, batches = begun(name, make)
    moved, other, _ = begun(name, make)
    report = ChangeOfBasis(group=group, seed=3)(moved, [batches[0]], loss_of)
    assert report.accepted
    if carry:
        transport_state(other, report)
    start = [parameter.detach().clone() for parameter in moved.parameters()]
    steps(moved, other, batches, 4, 9)
    steps(model, optimizer, batches, 4, 9)
    report.change.apply(model)
    assert any(not torch.equal(a, b) for a, b in zip(start, moved.parameters(), strict=True))
    ends = [parameter.detach() for parameter in moved.parameters()]
    length = max(float((a - b).abs().max()) for a, b in zip(start, ends, strict=True))
    for a, b in zip(model.parameters(), ends, strict=True):
        yield float((a.detach() - b).abs().max()) / length


def permuted() -> list[Any]:
    """Each optimizer on two networks, three of them on all; most of these are slow tests."""
    pairs = [(each, name) for each in OPTIMIZERS for name in ("tower", "attention")]
    pairs += [
        (each, name) for each in ("momentum", "adamw", "adagrad") for name in NETWORKS if (each, name) not in pairs
    ]
    fast = {(each, "attention") for each in ("momentum", "adamw", "adagrad", "rmsprop")}
    return [pytest.param(*pair, marks=() if pair in fast else pytest.mark.slow) for pair in pairs]


@pytest.mark.parametrize(("optimizer", "name"), permuted())
def test_a_training_goes_on_after_a_permutation(optimizer, name):
    assert max(errors(name, OPTIMIZERS[optimizer], "permutation")) < 1e-10


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        ("momentum", "attention"),
        *(
            pytest.param(optimizer, name, marks=pytest.mark.slow)
            for optimizer in ROTATED
            for name in ("attention", "grouped rotary", "rotatable")
            if (optimizer, name) != ("momentum", "attention")
        ),
    ],
)
def test_a_training_goes_on_after_a_rotation(optimizer, name):
    assert max(errors(name, OPTIMIZERS[optimizer], "orthogonal")) < 1e-10


LANGUAGE = {"gpt2": (1e-10, 1e-6), "llama": (1e-6, 1e-3)}
"""Bounds for momentum, and for steps that divide by roots of squares. Llama's norms compute in float32."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LANGUAGE)
@pytest.mark.parametrize(
    ("optimizer", "group"),
    [("momentum", "permutation"), ("momentum", "orthogonal"), ("adamw", "permutation"), ("adagrad", "permutation")],
)
def test_a_language_model_goes_on(optimizer, group, name):
    bound = LANGUAGE[name][optimizer != "momentum"]
    found = max(errors(name, OPTIMIZERS[optimizer], group))
    assert found < bound < 0.01 < max(errors(name, OPTIMIZERS[optimizer], group, carry=False))


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_it_does_not_go_on_without_its_state(optimizer):
    """The comparison sees a state that stays behind."""
    assert max(errors("attention", OPTIMIZERS[optimizer], "permutation", carry=False)) > 0.05


@pytest.fixture
def muon_of_double() -> type[torch.optim.Optimizer]:
    teleport.register_optimizer(Orthogonalised, {"momentum_buffer": -1})
    return Orthogonalised


def matrices(make: Make) -> Make:
    return lambda parameters: make([each for each in parameters if each.dim() == 2])


@pytest.mark.parametrize("group", ["permutation", "orthogonal"])
def test_momentum_that_is_made_orthogonal_goes_on(muon_of_double, group):
    assert max(errors("attention", matrices(lambda p: muon_of_double(p, 0.01)), group)) < 1e-8


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="since torch 2.9")
@pytest.mark.parametrize("group", ["permutation", "orthogonal"])
def test_muon_goes_on_to_the_rounding_of_its_matrices(group):
    """It makes momentum orthogonal in bfloat16 on the CPU, too, so that a rotation moves what is rounded."""
    muon = matrices(lambda p: torch.optim.Muon(p, 0.01))
    assert max(errors("rotatable", muon, group)) < 0.15 < max(errors("rotatable", muon, group, carry=False))


@pytest.mark.parametrize(
    ("name", "group"),
    [
        pytest.param(name, group, marks=() if (name, group) == ("grouped rotary", "all") else pytest.mark.slow)
        for name in ("tower", "grouped rotary", "images")
        for group in ("permutation", "orthogonal", "general", "all")
    ],
)
def test_averages_of_gradients_and_copies_of_parameters_follow_every_group(name, group):
    """Momentum is a gradient at the moved weights, and a copy is moved like the parameter, by any group."""
    model, batches = network_of(name), inputs_of(name)
    optimizer = torch.optim.SGD(model.parameters(), 1e-30, momentum=0.9)  # no step: the buffer is the gradient
    averaged = torch.optim.ASGD(model.parameters(), 1e-30)
    steps(model, optimizer, batches, 0, 1)
    for parameter in model.parameters():
        averaged.state[parameter] |= {"ax": 2 * parameter.detach(), "step": torch.ones(())}
    report = ChangeOfBasis(group=group, seed=3, range=0.5)(model, [batches[0]], loss_of)
    transport_state(optimizer, report)
    transport_state(averaged, report)
    loss_of(model.zero_grad() or model, batches[0]).backward()
    for parameter in model.parameters():
        buffer, copied = optimizer.state[parameter]["momentum_buffer"], averaged.state[parameter]["ax"]
        torch.testing.assert_close(buffer, parameter.grad, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(copied, 2 * parameter.detach(), rtol=1e-10, atol=1e-12)


def test_norms_that_were_folded_are_refused_and_the_others_followed():
    """Weights of a norm are one after the folding, and do not turn with the stream: their gradient is another one."""
    model, batches = network_of("attention"), inputs_of("attention")
    optimizer = torch.optim.SGD(model.parameters(), 1e-30, momentum=0.9)
    steps(model, optimizer, batches, 0, 1)
    report = ChangeOfBasis(group="orthogonal", seed=3, fold_norms=True)(model, [batches[0]], loss_of)
    assert report.symmetries.folded == ("norm.weight",)
    with pytest.raises(ValueError, match=r"SGD keeps 'momentum_buffer', .* 'norm\.weight' was folded into the weights"):
        transport_state(optimizer, report)
    transport_state(optimizer, report, elementwise="keep")
    loss_of(model.zero_grad() or model, batches[0]).backward()
    for name, parameter in model.named_parameters():
        if name != "norm.weight":
            buffer = optimizer.state[parameter]["momentum_buffer"]
            torch.testing.assert_close(buffer, parameter.grad, rtol=1e-8, atol=1e-10)


def test_the_inverse_brings_the_state_back_bit_for_bit():
    model, batches = network_of("attention"), inputs_of("attention")
    optimizer = OPTIMIZERS["adam"](model.parameters())
    steps(model, optimizer, batches, 0, 3)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    report = ChangeOfBasis(group="permutation", seed=3)(model, [batches[0]], loss_of)
    transport_state(optimizer, report)
    after = optimizer.state_dict()["state"]
    assert any(not torch.equal(before[index]["exp_avg_sq"], after[index]["exp_avg_sq"]) for index in before)
    transport_state(optimizer, report.change.inverse().carriers(model))
    for index, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, before[index][key]) for key, value in state.items())


def test_a_general_rescaling_hands_its_matrices_over():
    model, batches = network_of("attention"), inputs_of("attention")
    optimizer = torch.optim.SGD(model.parameters(), 1e-30, momentum=0.9)
    steps(model, optimizer, batches, 0, 1)
    report = Rescaling(lr=0.1, steps=2, group="general")(model, [batches[0]], loss_of)
    assert not report.no_op
    transport_state(optimizer, report)
    loss_of(model.zero_grad() or model, batches[0]).backward()
    for parameter in model.parameters():
        torch.testing.assert_close(optimizer.state[parameter]["momentum_buffer"], parameter.grad, rtol=1e-6, atol=1e-9)


def adam_after(group: str) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    model, batches = network_of("attention"), inputs_of("attention")
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    steps(model, optimizer, batches, 0, 3)
    return model, optimizer, ChangeOfBasis(group=group, seed=3)(model, [batches[0]], loss_of)


def test_squares_of_gradients_are_refused_where_elements_are_mixed():
    _, optimizer, report = adam_after("orthogonal")
    before = copy.deepcopy(optimizer.state_dict()["state"])
    with pytest.raises(ValueError, match=r"AdamW keeps 'exp_avg_sq', which cannot follow the move: .* matrix mixes"):
        transport_state(optimizer, report)
    for index, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, before[index][key]) for key, value in state.items())
    with pytest.raises(ValueError, match="elementwise must be one of refuse, reset, keep"):
        transport_state(optimizer, report, elementwise="drop")


def test_squares_of_gradients_are_kept_or_the_state_starts_anew():
    for choice in ("keep", "reset"):
        model, optimizer, report = adam_after("orthogonal")
        names = {parameter: name for name, parameter in model.named_parameters()}
        before = {names[each]: {k: v.clone() for k, v in state.items()} for each, state in optimizer.state.items()}
        transport_state(optimizer, report, elementwise=choice)
        mixed = {names[each] for each, carrier in report.carriers.items() if carrier.hindrance(-2)}
        assert {"query.weight", "key.weight"} <= mixed
        assert not {"embed.weight", "norm.weight", "head.weight"} & mixed
        for parameter, name in names.items():
            state = optimizer.state.get(parameter, {})
            assert bool(state) == (name not in mixed or choice == "keep")
            if name in mixed and state:
                assert torch.equal(state["exp_avg_sq"], before[name]["exp_avg_sq"])
                assert not torch.equal(state["exp_avg"], before[name]["exp_avg"])
        steps(model, optimizer, inputs_of("attention"), 3, 5)
        assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_sums_of_adagrad_start_anew_as_they_were_made():
    model, batches = network_of("attention"), inputs_of("attention")
    optimizer = torch.optim.Adagrad(model.parameters(), 0.01, initial_accumulator_value=0.25)
    steps(model, optimizer, batches, 0, 3)
    report = ChangeOfBasis(group="orthogonal", seed=3)(model, [batches[0]], loss_of)
    transport_state(optimizer, report, elementwise="reset")
    state = optimizer.state[model.query.weight]
    assert torch.equal(state["sum"], torch.full_like(model.query.weight, 0.25))
    assert float(state["step"]) == 0 < float(optimizer.state[model.embed.weight]["step"])
    steps(model, optimizer, batches, 3, 5)


class Slow(torch.optim.Optimizer):
    """Lookahead (Zhang et al. 2019), written anew: every third step goes half the way from slow weights."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.count = optimizer, 0
        super().__init__(optimizer.param_groups, {})
        for parameter in (each for group in self.param_groups for each in group["params"]):
            self.state[parameter]["slow"] = parameter.detach().clone()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.optimizer.step()
        self.count += 1
        for parameter, state in self.state.items():
            if self.count % 3 == 0:
                state["slow"].lerp_(parameter, 0.5)
                parameter.copy_(state["slow"])


def test_both_states_of_an_optimizer_around_another_are_carried():
    teleport.register_optimizer(Slow, {"slow": 1})
    ends = []
    for move in (True, False):
        model, batches = network_of("attention"), inputs_of("attention")
        optimizer = Slow(torch.optim.AdamW(model.parameters(), 0.01))
        steps(model, optimizer, batches, 0, 4)
        if move:
            report = ChangeOfBasis(group="permutation", seed=3)(model, [batches[0]], loss_of)
            transport_state(optimizer, report)
        steps(model, optimizer, batches, 4, 9)
        ends.append(model)
    report.change.apply(ends[1])
    for one, other in zip(*(each.parameters() for each in ends), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_copies_of_parameters_are_named_where_a_move_is_not_linear():
    teleport.register_optimizer(Slow, {"slow": 1})
    model, batches = network_of("tower"), inputs_of("tower")
    optimizer = Slow(torch.optim.SGD(model.parameters(), 0.01))
    report = teleport.NullSpace(lr=0.1)(model, [batches[0][:2]], loss_of)
    with pytest.raises(ValueError, match="'slow' of Slow is a copy of the parameters, which forgets the move"):
        transport_state(optimizer, report)


@pytest.mark.parametrize("kind", ["AdamWScheduleFree", "SGDScheduleFree"])
def test_schedule_free_goes_on_after_a_permutation(kind):
    """``z``, a copy of the parameters, is moved along."""
    schedulefree = pytest.importorskip("schedulefree")

    def make(parameters: Any) -> torch.optim.Optimizer:
        optimizer = getattr(schedulefree, kind)(parameters, lr=0.02)
        optimizer.train()
        return optimizer

    assert max(errors("attention", make, "permutation")) < 1e-10
    assert max(errors("attention", make, "permutation", carry=False)) > 0.05


def test_slow_weights_of_lookahead_go_on_after_a_permutation():
    package = pytest.importorskip("pytorch_optimizer")

    def make(parameters: Any) -> torch.optim.Optimizer:
        return package.Lookahead(torch.optim.AdamW(parameters, 0.01), k=3)

    assert max(errors("attention", make, "permutation")) < 1e-10
    assert max(errors("attention", make, "permutation", carry=False)) > 0.05
