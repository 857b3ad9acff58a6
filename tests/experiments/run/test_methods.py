"""Optimizers, teleporters and schedules from configurations."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from experiments.configuration.config import OptimizerConfig, SGDConfig
from experiments.configuration.teleport_config import (
    ChangeOfBasisConfig,
    LevelSetConfig,
    NullSpaceConfig,
    OrbitConfig,
    PseudoTeleportConfig,
    RandomNullSpaceConfig,
    RescalingConfig,
    SymmetryConfig,
    TeleportConfig,
)
from experiments.errors import UserError
from experiments.run.methods import OPTIMIZERS, TELEPORTERS, build_optimizer, build_schedule, build_teleporter
from teleport import (
    Auto,
    Balance,
    ChangeOfBasis,
    LevelSet,
    NullSpace,
    Orbit,
    PseudoTeleport,
    RandomNullSpace,
    Rescaling,
    Symmetry,
)


class Scalar(nn.Module):
    """One trainable number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))


def two_steps(config: OptimizerConfig) -> list[float]:
    """The value after each of two steps on value^2 / 2, whose gradient is the value; from 2."""
    model = Scalar(2.0)
    optimizer = build_optimizer(config, model)
    values = []
    for _ in range(2):
        optimizer.zero_grad()
        (model.value**2 / 2).backward()
        optimizer.step()
        values.append(model.value.item())
    return values


def closed_form(name: str, lr: float, decay: float) -> list[float]:
    """The same by the published update rules (betas 0.8 and 0.9, momentum 0.9)."""
    value, buffer, first, second, total, values = 2.0, 0.0, 0.0, 0.0, 0.0, []
    for step in (1, 2):
        gradient = value + (0 if name == "adamw" else decay * value)
        if name == "sgd":
            value -= lr * gradient
        elif name == "momentum":
            buffer = 0.9 * buffer + gradient
            value -= lr * buffer
        elif name == "adagrad":
            total += gradient**2
            value -= lr * gradient / (math.sqrt(total) + 1e-10)
        else:
            first, second = 0.8 * first + 0.2 * gradient, 0.9 * second + 0.1 * gradient**2
            corrected = (first / (1 - 0.8**step)) / (math.sqrt(second / (1 - 0.9**step)) + 1e-8)
            value -= lr * corrected + (lr * decay * value if name == "adamw" else 0)
        values.append(value)
    return values


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_against_the_published_rules(name, decay):
    own = {"momentum": {"momentum": 0.9}, "adam": {"betas": [0.8, 0.9]}, "adamw": {"betas": [0.8, 0.9]}}.get(name, {})
    config = OPTIMIZERS[name][0](name=name, lr=0.05, weight_decay=decay, **own)
    assert two_steps(config) == pytest.approx(closed_form(name, 0.05, decay), rel=1e-12)


def test_parameters_that_need_no_gradient_are_left_out():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    optimizer = build_optimizer(SGDConfig(name="sgd", lr=0.1), model)
    assert [id(parameter) for parameter in optimizer.param_groups[0]["params"]] == list(map(id, model[1].parameters()))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SGDConfig(name="sgdd", lr=0.1), r"unknown optimizer 'sgdd' \(did you mean 'sgd'\?\)"),
        (SGDConfig(name="adam", lr=0.1), r"choose optimizer=adam instead"),
        (SGDConfig(name="sgd", lr=0.1, nesterov=True), r"optimizer=sgd: Nesterov momentum requires a momentum"),
    ],
)
def test_bad_optimizers(config, message):
    with pytest.raises(UserError, match=message) as caught:
        build_optimizer(config, Scalar(1.0))
    assert "\n" not in str(caught.value)


def test_a_model_with_nothing_to_train():
    with pytest.raises(UserError, match="no parameter that requires a gradient"):
        build_optimizer(SGDConfig(name="sgd", lr=0.1), nn.ReLU())


# a value for each key of a method that is not the loop's
COMMON = {"cap": 7.0, "relative_cap": 2.5, "guard": "none", "tolerance": 0.25}
BASIS = {"range": 0.25, "sampling": "inter", "center": 2.0, "activations": "teleport", "seed": 4}
ASCENT = COMMON | {"lr": 0.5, "steps": 3}
VALUES = {
    "nullspace": (
        NullSpace,
        ASCENT
        | {"threshold": 0.99, "step": "fixed", "objective_params": "moved", "forward": "each"}
        | {"objective": "sharpness", "objective_scale": 0.125, "lr_unit": "absolute", "path": "ascent"},
    ),
    "random": (RandomNullSpace, COMMON | {"length": 0.5, "seed": 4, "threshold": 0.99}),
    "levelset": (LevelSet, ASCENT | {"lr_unit": "absolute"}),
    "rescaling": (Rescaling, ASCENT | {"mode": "balance", "bound": 0.5, "step": "fixed"}),
    "balance": (Balance, {"criterion": "equal_norm", "p": 3.0, "guard": "none", "tolerance": 0.25}),
    "change_of_basis": (ChangeOfBasis, BASIS | {"guard": "none", "tolerance": 0.25}),
    "pseudo_teleport": (PseudoTeleport, BASIS),
    "symmetry": (Symmetry, ASCENT | {"variant": "2022", "step": "cap", "inverse": "exact", "lr_unit": "absolute"}),
    "auto": (Auto, {"share": 0.2, "growth": 3.0, "horizon": 4, "tolerance": 0.1}),
    "orbit": (
        Orbit,
        ASCENT | {"action": "booth", "step": "fixed", "objective": "loss_after_step", "objective_scale": 0.5},
    ),
}


@pytest.mark.parametrize("name", [name for name in TELEPORTERS if name != "none"])
def test_a_teleporter_carries_every_value_of_its_keys(name):
    method, values = VALUES[name][0], dict(VALUES[name][1])
    schema = TELEPORTERS[name][0]
    of_the_loop = {field.name for field in dataclasses.fields(TeleportConfig)} | {
        "constraint_batches",
        "held_out_batches",
    }
    assert set(values) == {field.name for field in dataclasses.fields(schema)} - of_the_loop
    teleporter = build_teleporter(schema(name=name, **values))
    assert isinstance(teleporter, method)
    action = values.pop("action", None)
    assert {key: getattr(teleporter, key) for key in values} == values
    if action:  # the name of a function
        moved = teleporter.action(torch.tensor(math.pi), {"coordinates": torch.tensor([1.0, 4.0])})["coordinates"]
        assert moved.tolist() == pytest.approx([1.0, 2.0])  # half a turn about the minimum, (1, 3)


@pytest.mark.parametrize(("path", "batches"), [("least_drift", 0), ("shortest", 2), ("ascent", 1)])
def test_held_out_batches_go_with_the_path_that_reads_them(path, batches):
    config = NullSpaceConfig(name="nullspace", lr=1.0, path=path, held_out_batches=batches)
    with pytest.raises(UserError, match=rf"held_out_batches={batches} does not go with teleport.path={path}"):
        build_teleporter(config)
    build_teleporter(NullSpaceConfig(name="nullspace", lr=1.0, path="least_drift", held_out_batches=1))


def test_a_state_is_transported_only_by_a_method_of_factors():
    assert isinstance(build_teleporter(RescalingConfig(name="rescaling", optimizer_state="transported")), Rescaling)
    changes = ChangeOfBasisConfig(name="change_of_basis", optimizer_state="transported", seed=0)
    assert isinstance(build_teleporter(changes), ChangeOfBasis)
    for config in (
        TeleportConfig(name="none", optimizer_state="transported"),
        NullSpaceConfig(name="nullspace", lr=1.0, optimizer_state="transported"),
        PseudoTeleportConfig(name="pseudo_teleport", seed=0, optimizer_state="transported"),
    ):
        with pytest.raises(
            UserError, match=r"transported needs .* \(rescaling, balance, change_of_basis\), which teleport=\w+ is not"
        ):
            build_teleporter(config)


def test_none_is_no_teleporter():
    assert build_teleporter(TeleportConfig(name="none")) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TeleportConfig(name="nulspace"), r"unknown teleport 'nulspace' \(did you mean 'nullspace'\?\)"),
        (TeleportConfig(name="nullspace"), r"choose teleport=nullspace instead"),
        (NullSpaceConfig(name="nullspace", lr=-1.0), r"teleport=nullspace: .*lr"),
        (NullSpaceConfig(name="nullspace", lr=1.0, steps=-1), r"teleport=nullspace: .*steps"),
        (NullSpaceConfig(name="nullspace", lr=1.0, threshold=1.5), r"teleport=nullspace: .*threshold"),
        (NullSpaceConfig(name="nullspace", lr=1.0, step="big"), r"teleport=nullspace: .*step"),
        (NullSpaceConfig(name="nullspace", lr=1.0, guard="some"), r"teleport=nullspace: .*guard"),
        (NullSpaceConfig(name="nullspace", lr=1.0, objective="norm"), r"teleport=nullspace: objective must be one of"),
        (RandomNullSpaceConfig(name="random", seed=0, length=0.0), r"teleport=random: length must be above 0"),
        (LevelSetConfig(name="levelset", lr=0.0), r"teleport=levelset: lr must be above 0"),
        (RescalingConfig(name="rescaling", mode="up"), r"teleport=rescaling: mode must be one of ascent, balance"),
        (RescalingConfig(name="rescaling", bound=-1.0), r"teleport=rescaling: bound must be above 0"),
        (OrbitConfig(name="orbit", action="boot"), r"unknown action of teleport=orbit .* \(did you mean 'booth'\?\)"),
        (OrbitConfig(name="orbit", action="booth", lr=0.0), r"teleport=orbit: lr must be above 0"),
        (
            ChangeOfBasisConfig(name="change_of_basis", seed=0, range=1.5),
            r"teleport=change_of_basis: range must be below 1",
        ),
        (
            PseudoTeleportConfig(name="pseudo_teleport", seed=0, sampling="out"),
            r"teleport=pseudo_teleport: sampling must",
        ),
        (SymmetryConfig(name="symmetry", lr=1.0, variant="2023"), r"teleport=symmetry: .*variant"),
        (SymmetryConfig(name="symmetry", lr=1.0, variant="2024", inverse="exact"), r"teleport=symmetry: .*inverse"),
    ],
)
def test_bad_teleporters(config, message):
    with pytest.raises(UserError, match=message) as caught:
        build_teleporter(config)
    assert "\n" not in str(caught.value)


def test_a_schedule_follows_its_keys():
    schedule = build_schedule(TeleportConfig(name="none", epochs=[0, 2], at_steps=[7], warmup_steps=5), 10)
    assert schedule.steps == [5, 7, 20]


def test_a_bad_schedule():
    with pytest.raises(UserError, match="teleport=none: epochs must not be negative"):
        build_schedule(TeleportConfig(name="none", epochs=[-1]), 10)
