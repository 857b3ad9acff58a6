"""Every file under conf/ composes into checked dataclasses."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.configuration.config import Config, register
from experiments.configuration.identity import identity
from experiments.configuration.options import NO_GROUPS
from experiments.configuration.teleport_config import NullSpaceConfig
from experiments.models.registry import MODELS
from experiments.run.methods import OPTIMIZERS, TELEPORTERS, build_schedule, build_teleporter

CONF = Path(__file__).parent.parent / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name not in NO_GROUPS)
RATES = yaml.safe_load((CONF / "rates" / "suite.yaml").read_text())
NEEDED = {  # keys that have no value of their own
    ("model", "custom"): ["model.factory=package.module:function"],
    ("model", "torchvision"): ["model.arch=resnet50"],
}


def names(group: str) -> list[str]:
    return [file.relative_to(CONF / group).with_suffix("").as_posix() for file in FILES if CONF / group in file.parents]


@cache
def composed(*overrides: str) -> Config:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(compose("config", list(overrides)))
    assert isinstance(config, Config)
    return config


def test_the_defaults_compose():
    assert composed().data.name == "digits"


@pytest.mark.parametrize("choice", [(group, name) for group in GROUPS for name in names(group)], ids="=".join)
def test_every_option_of_every_group_composes(choice):
    group, name = choice
    config = composed(f"{group}={name}", *NEEDED.get(choice, []))
    table = {"model": MODELS, "optimizer": OPTIMIZERS, "teleport": TELEPORTERS}.get(group)
    if table is not None:
        assert getattr(config, group).name in table


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(CONF).as_posix())
def test_every_file_begins_with_a_comment(file):
    assert file.read_text().startswith("#")


@pytest.mark.parametrize("data", names("data"))
def test_every_data_set_has_an_extent_for_every_scale(data):
    extents = composed(f"data={data}").data.extents
    assert set(extents) == set(names("scale"))
    assert all(extent.epochs >= 1 for extent in extents.values())


def test_the_rates_have_a_row_for_every_pair_of_data_set_and_optimizer():
    assert set(RATES) - {"symmetry"} == set(names("data"))
    assert set(RATES["symmetry"]) == set(names("optimizer"))
    for data in names("data"):
        row = RATES[data]
        assert set(row) == set(names("optimizer")), data
        for optimizer, rates in row.items():
            assert set(rates) == {"lr", "teleport_lr", "cap"}, (data, optimizer)
            assert min(rate for rate in rates.values() if rate is not None) > 0, (data, optimizer)


@pytest.mark.parametrize("optimizer", names("optimizer"))
def test_the_rates_reach_optimizer_and_teleport(optimizer):
    config = composed(f"optimizer={optimizer}", "teleport=nullspace")
    rates = RATES["digits"][optimizer]
    assert isinstance(config.teleport, NullSpaceConfig)
    assert [config.optimizer.lr, config.teleport.lr, config.teleport.cap] == [*rates.values()]


def test_rates_confirmed_by_zhao_et_al():
    confirmed = {"sgd": 1e-2, "momentum": 1e-3, "adagrad": 1e-2, "adam": 1e-4}
    for data in ("mnist", "fashion_mnist"):
        assert {optimizer: RATES[data][optimizer]["lr"] for optimizer in confirmed} == confirmed


@pytest.mark.parametrize("optimizer", names("optimizer"))
def test_symmetry_is_as_published_for_every_optimizer(optimizer):
    """Rate (half of lr) and the one epoch that it teleports before, by optimizer; Zhao et al. 2024, their code."""
    rate, epoch = (1e-4, 2) if optimizer in ("sgd", "adagrad") else (5e-2, 0)
    config = composed(f"optimizer={optimizer}", "teleport=symmetry").teleport
    method = build_teleporter(config)
    assert (method.variant, method.lr, method.cap) == ("2024", 2 * rate, 10.0)
    assert (method.steps, method.step, method.guard) == (10, "fixed", "none")
    assert build_schedule(config, 100).steps == [100 * epoch]


@pytest.mark.parametrize("name", [name for name in names("teleport") if name.startswith("symmetry_")])
def test_variants_of_symmetry_teleport_when_the_published_one_does(name):
    for optimizer in ("sgd", "adam"):
        schedules = [
            composed(f"optimizer={optimizer}", f"teleport={each}").teleport.epochs for each in (name, "symmetry")
        ]
        assert schedules[0] == schedules[1]
    assert build_teleporter(composed(f"teleport={name}").teleport).variant in (name.removeprefix("symmetry_"), "2024")


@pytest.mark.parametrize("model", [name for name in names("model") if ("model", name) not in NEEDED])
def test_a_teleport_takes_samples_and_warm_up_from_the_model(model):
    config = composed(f"model={model}", "teleport=nullspace")
    assert config.teleport.samples == config.model.teleport_samples == (200 if model.startswith("mlp") else 32)
    assert config.teleport.warmup_steps == config.model.warmup_steps == (50 if model in ("cnn", "resnet") else 0)
    assert build_schedule(config.teleport, 100).steps[0] == config.model.warmup_steps


def test_the_composed_null_space_teleport_carries_the_table():
    config = composed("data=digits", "optimizer=sgd", "teleport=nullspace", "teleport.steps=3")
    rates = RATES["digits"]["sgd"]
    teleporter = build_teleporter(config.teleport)
    assert (teleporter.lr, teleporter.cap, teleporter.steps) == (rates["teleport_lr"], rates["cap"], 3)


def test_a_transformer_has_the_size_of_its_data_set_or_of_the_scale():
    sizes = [("smnist", "quick", (4, 16, 2)), ("smnist", "paper", (4, 16, 2))]
    sizes += [
        (data, scale, (4, 64 if scale == "paper" else 16, 4)) for data in ("ptb", "my_own") for scale in names("scale")
    ]
    for data, scale, size in sizes:
        model = composed("model=transformer", f"data.name={data}", f"scale={scale}", "optimizer.lr=1").model
        assert (model.heads, model.head_dim, model.layers) == size
    assert composed("model=transformer", "model.head_dim=8").model.head_dim == 8


def test_a_transformers_size_names_a_run_and_the_table_of_sizes_does_not():
    plain = identity(composed("model=transformer", "data=smnist"))
    assert identity(composed("model=transformer", "data=smnist", "model.sizes.quick.layers=3")) == plain
    assert identity(composed("model=transformer", "data=smnist", "model.sizes.smnist.layers=3")) != plain


def test_a_residual_network_is_narrow_but_at_paper_scale():
    widths = {scale: composed("model=resnet", f"scale={scale}").model.channels for scale in names("scale")}
    assert widths["paper"] == [64, 128, 256, 512]
    assert widths["quick"] == [width // 2 for width in widths["paper"]]
    assert identity(composed("model=resnet")) == identity(composed("model=resnet", "model.channels=[32,64,128,256]"))


def test_texts_are_as_long_as_their_scale_says():
    lengths = {
        scale: composed("data=ptb", "model=transformer", f"scale={scale}").data.length for scale in names("scale")
    }
    assert lengths == {"smoke": 128, "quick": 128, "paper": 256}
    plain = identity(composed("data=ptb", "model=transformer"))
    assert plain == identity(composed("data=ptb", "model=transformer", "data.lengths.paper=512"))
    assert plain != identity(composed("data=ptb", "model=transformer", "data.lengths.quick=512"))


def test_the_networks_of_armenta_et_al_are_narrow_but_at_paper_scale():
    for model in ("vgg16", "resnet18", "densenet121"):
        widths = {scale: composed(f"model={model}", f"scale={scale}").model.width for scale in names("scale")}
        assert widths["paper"] == 1.0
        assert 0 < widths["smoke"] <= widths["quick"] < 1
    assert identity(composed("model=vgg16", "model.width=1")) == identity(
        composed("model=vgg16", "model.sizes.quick=1")
    )


@pytest.mark.parametrize("panel", [name for name in names("experiment") if name.startswith("neural/")])
def test_the_panels_of_armenta_et_al_have_their_settings(panel):
    model, data = panel.removeprefix("neural/").split("_")
    config = composed(f"experiment={panel}", "scale=paper")
    assert (config.data.name, config.data.crop, config.data.flip) == (data, 4, True)
    assert (config.training.batch_size, config.training.epochs, config.model.init) == (256, 100, "kaiming")
    assert config.model == composed(f"model={model}", f"data={data}", "scale=paper").model
    assert config.optimizer.lr == 0.01
    teleport = config.teleport
    assert (teleport.name, teleport.epochs, teleport.warmup_steps) == ("change_of_basis", [0], 0)
    assert (teleport.range, teleport.sampling, teleport.activations) == (0.9, "inter", "teleport")
