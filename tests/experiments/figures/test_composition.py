"""Configurations of many runs are those that Hydra composes one by one."""

from __future__ import annotations

import pytest
from hydra import compose
from omegaconf import OmegaConf, open_dict

from experiments.errors import UserError
from experiments.figures.composition import Composer, compose_config
from tests.experiments.figures.conftest import conf

pytestmark = pytest.mark.slow

LISTS = [
    ["data=digits", "model=mlp", "optimizer=sgd", "teleport=none", "seed=1"],
    ["data=digits", "model=mlp", "optimizer=sgd", "teleport=none", "model.widths=[7,5]", "optimizer.lr=1e-2", "seed=2"],
    ["data=digits", "model=mlp", "optimizer=sgd", "teleport=none", "training.max_steps=null", "machine.runs=/a b"],
    ["experiment=nullspace/mlp_mnist", "teleport=nullspace", "teleport.epochs=[0,2]", "scale=smoke", "seed=1"],
    ["experiment=nullspace/mlp_mnist", "teleport=nullspace", "teleport.cap=${optimizer.lr}", "scale=smoke"],
    ["data=digits", "+machine.added=1", "machine.added=2", "seed=3"],
]


def by_hydra(overrides):
    config = compose("config", overrides, return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, choices


def test_each_is_what_hydra_composes():
    composer = Composer()
    with conf():
        for overrides in [*LISTS, *LISTS[:2]]:  # the copies of a choice are independent of each other
            config, choices = composer(overrides)
            expected, chosen = by_hydra(overrides)
            assert OmegaConf.to_container(config) == OmegaConf.to_container(expected)
            assert choices == chosen


@pytest.mark.parametrize("wrong", ["model.widts=3", "seed=one", "optimizer=sdg", "seed='", "training.epochs=[1,2]"])
def test_a_mistake_is_said_as_hydra_would_say_it(wrong):
    overrides = ["data=digits", wrong]
    with conf():
        with pytest.raises(UserError) as expected:
            compose_config(overrides)
        with pytest.raises(UserError) as found:
            Composer()(overrides)
    assert str(found.value) == str(expected.value)
