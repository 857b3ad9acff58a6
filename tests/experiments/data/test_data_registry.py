from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.configuration.config import register
from experiments.configuration.data_config import ImageData, SeriesData
from experiments.data.published import is_stored, stored_files
from experiments.data.registry import FACTORIES, KNOWN, OFFLINE, build_task
from experiments.errors import UserError
from experiments.functions import FUNCTIONS

CONF = Path(__file__).resolve().parents[3] / "conf"
CPU = torch.device("cpu")
SCALES = ("smoke", "quick", "paper")


def composed(*overrides: str):
    register()
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("config", list(overrides))


def test_every_set_has_a_file_and_a_factory():
    assert sorted(path.stem for path in (CONF / "data").glob("*.yaml")) == KNOWN == sorted(FACTORIES)


@pytest.mark.parametrize("name", KNOWN)
def test_every_file_composes_at_every_scale_and_is_commented(name):
    path = CONF / "data" / f"{name}.yaml"
    assert path.read_text().startswith("# ")
    assert set(yaml.safe_load(path.read_text())["extents"]) == set(SCALES)
    for scale in SCALES:
        config = composed(f"data={name}", f"scale={scale}")
        assert config.data.name == name
        assert config.data.batch_size == 32
        resolved = OmegaConf.to_container(config.data, resolve=True, throw_on_missing=True)
        extent = resolved["extents"][scale]
        assert resolved["train_samples"] == extent["train_samples"]
        assert config.training.eval_every == extent["eval_every"]
        assert config.training.eval_samples == extent["eval_samples"]
        assert set(FACTORIES[name][0].__dataclass_fields__) == set(resolved)


@pytest.mark.parametrize("name", [*OFFLINE, *FUNCTIONS])
def test_offline_sets_are_built_as_composed(name, tmp_path):
    config = composed(f"data={name}", "scale=smoke", f"data.root={tmp_path / 'absent'}").data
    for given in (config, OmegaConf.to_object(config)):
        task = build_task(given, CPU)
        x, y = task.train.batch(torch.arange(4), torch.Generator().manual_seed(0))
        assert tuple(x.shape) == (4, *task.spec.input_shape)
        assert torch.isfinite(task.loss(torch.zeros(4, task.spec.outputs), y))
    assert not (tmp_path / "absent").exists()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"unknown data set 'cifar' \(did you mean 'cifar10'\?\); known: .*digits"):
        build_task(ImageData(name="cifar"), CPU)
    with pytest.raises(UserError, match="unknown data set 'nope'"):
        stored_files("nope", Path())


def test_the_name_of_another_kind_of_set_is_answered_with_the_way_to_choose_it(tmp_path):
    config = ImageData(name="etth1", root=str(tmp_path), train_samples=None, test_samples=None)
    with pytest.raises(UserError, match="data=etth1"):
        build_task(config, CPU)


def test_where_sets_are_stored(tmp_path):
    assert stored_files("smnist", tmp_path) == stored_files("mnist", tmp_path) == [tmp_path / "mnist.npz"]
    assert stored_files("digits", tmp_path) == []
    assert is_stored("random", tmp_path)
    assert not is_stored("ptb", tmp_path)
    (tmp_path / "ptb").mkdir()
    (tmp_path / "ptb" / "ptb.train.txt").touch()
    assert not is_stored("ptb", tmp_path)
    (tmp_path / "ptb" / "ptb.test.txt").touch()
    assert is_stored("ptb", tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in KNOWN if name not in (*OFFLINE, *FUNCTIONS)])
def test_real_sets_at_smoke_scale(name, real_root):
    keys = ["data.window=24"] if FACTORIES[name][0] is SeriesData else []
    config = composed(f"data={name}", "scale=smoke", f"data.root={real_root(name)}", *keys).data
    task = build_task(config, CPU)
    assert len(task.train) == config.train_samples
    x, y = task.train.batch(torch.arange(3), torch.Generator().manual_seed(0))
    assert tuple(x.shape) == (3, *task.spec.input_shape)
    assert (
        task.metric
        == {"image": "accuracy", "sequence": "accuracy", "series": "mse", "text": "perplexity"}[task.spec.kind]
    )
    heads = {"text": (3, *task.spec.input_shape, task.spec.outputs)}
    loss = task.loss(torch.zeros(heads.get(task.spec.kind, (3, task.spec.outputs))), y)
    assert loss.ndim == 0
    if task.metric != "mse":
        assert loss.item() == pytest.approx(torch.log(torch.tensor(float(task.spec.outputs))).item(), rel=1e-5)
