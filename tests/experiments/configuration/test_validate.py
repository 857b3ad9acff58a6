from __future__ import annotations

import pytest

from experiments.configuration.config import Config
from experiments.configuration.validate import RULES, resolve
from experiments.errors import UserError
from tests.experiments.small import composed

WRONG = {
    "training.epochs=-1": "training.epochs must be a whole number from 0 to 2147483647, not -1",
    "training.batch_size=0": "training.batch_size",
    "training.eval_samples=0": "training.eval_samples",
    "training.eval_every=0": "training.eval_every",
    "training.max_steps=0": "training.max_steps",
    "training.plateau.factor=1.5": "between 0 and 1",
    "data.train_samples=0": "data.train_samples",
    "data.crop=-1": "data.crop must be a whole number from 0",
    "seed=-1": "seed",
    "seed=4294967296": "seed",
    "machine.device=gpu": "auto, cpu, cuda, xpu or mps",
    "machine.threads=0": "machine.threads",
    "machine.checkpoint_seconds=-1": "machine.checkpoint_seconds",
    "machine.checkpoint_seconds=nan": "machine.checkpoint_seconds",
    "machine.runs=''": "machine.runs",
    "model.weights=''": "model.weights must be the path of a file",
    "teleport.epochs=[0,-1]": "teleport.epochs",
    "teleport.samples=0": "teleport.samples",
    "teleport.optimizer_state=forget": "keep, reset or transported",
    "+more=1": "unknown key of a run 'more'",
    "+optimizer.moment=1": "did you mean 'momentum'",
    "~optimizer": "'optimizer' has no value",
    "training.epochs=???": "'training.epochs' has no value",
    "data.split=writer": "data.split must be random or order, not 'writer'",
    "data.name=none_such": "unknown data set 'none_such'",
    "optimizer.name=17": "unknown optimizer '17'; known: adagrad,",
    "optimizer.lr=1e308": "optimizer.lr must be a number above 0 and at most 1e+30, not 1e+308",
    "optimizer.momentum=1": "optimizer.momentum must be a number from 0 to below 1, not 1.0",
    "optimizer.nesterov='yes'": "optimizer.nesterov must be true or false, not 'yes'",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_one_sentence(override):
    with pytest.raises(UserError) as caught:
        resolve(composed(override))
    assert WRONG[override] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_right_comes_back_typed_and_resolved():
    config = resolve(composed("teleport=nullspace", "optimizer=adam"))
    assert isinstance(config, Config)
    assert config.teleport.warmup_steps == config.model.warmup_steps
    assert config.optimizer.betas == [0.9, 0.999]
    assert resolve(config) is config


def test_options_of_a_model_of_ones_own_are_free():
    config = resolve(composed("model=custom", "model.factory=a:b", "+model.options.width=3"))
    assert config.model.options == {"width": 3}


@pytest.mark.parametrize("key", sorted({key for _, _, keys in RULES for key in keys}))
def test_every_rule_is_about_a_key_that_exists(key):
    """A rule for a misspelt key would never say anything."""
    choices = ("data=digits", "data=los_speed", "data=ptb", "data=random", "model=resnet", "teleport=nullspace")
    nodes = [resolve(composed(choice)) for choice in choices]
    for name in key.split("."):
        nodes = [getattr(node, name) for node in nodes if hasattr(node, name)]
    assert nodes
