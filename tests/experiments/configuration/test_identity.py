from __future__ import annotations

import functools
from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from experiments.configuration.identity import computed, identity, label_by_choices, run_folder
from experiments.configuration.validate import resolve
from experiments.errors import UserError
from tests.experiments.small import composed

MACHINE_ONLY = {
    "machine.runs": "elsewhere",
    "machine.device": "cpu",
    "machine.threads": 1,
    "machine.jobs": 3,
    "machine.checkpoint_seconds": 1,
    "machine.progress": False,
    "data.root": "elsewhere",
    "rates.digits.adam.lr": 7,
    "figure": "some/figure",
}


def leaves(node, path=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def another(value):
    """Another value of the same type, or one where there is none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value / 2 if isinstance(value, float) and value else value + 1
    if isinstance(value, list):
        return [*value, value[0]] if value else [1]
    return f"{value}x" if isinstance(value, str) else 1


BASE = ("teleport=nullspace", "data=mnist", "model=cnn", "optimizer=momentum", "training.plateau.factor=0.5")
COMPUTED = [
    (key, value)
    for key, value in leaves(asdict(resolve(composed(*BASE))))
    if not key.startswith(("machine.", "tracking.", "rates.", "data.extents.", "scale", "figure"))
    and key not in ("data.root", "model.weights", "model.label", "teleport.label")
]


@pytest.mark.parametrize("key", MACHINE_ONLY)
def test_what_changes_no_number_does_not_change_the_identity(key):
    config = composed()
    OmegaConf.update(config, key, MACHINE_ONLY[key])
    assert identity(resolve(config)) == identity(resolve(composed()))


@pytest.mark.parametrize(("key", "value"), COMPUTED, ids=[key for key, _ in COMPUTED])
def test_every_other_key_changes_the_identity(key, value):
    changed = resolve(composed(*BASE))
    node = functools.reduce(getattr, key.split(".")[:-1], changed)
    setattr(node, key.split(".")[-1], another(value))
    assert identity(changed) != identity(resolve(composed(*BASE)))


def test_a_key_added_since_leaves_older_runs_their_names():
    """At the value that means what was before it; the hash is that of a configuration without the key."""
    config = resolve(composed("teleport=nullspace"))
    assert {"objective", "objective_scale"} & set(computed(config)["teleport"]) == set()
    assert "objective" in computed(resolve(composed("teleport=nullspace", "teleport.objective=curvature")))["teleport"]
    for method in ("nullspace", "levelset", "symmetry"):  # a run's rate was of the direction itself
        config = resolve(composed(f"teleport={method}"))
        assert "lr_unit" not in computed(config)["teleport"]
        config.teleport.lr_unit = "relative"
        assert computed(config)["teleport"]["lr_unit"] == "relative"
    assert "bias" not in computed(config)["model"]
    assert computed(resolve(composed("model.bias=false")))["model"]["bias"] is False


def test_a_revised_method_has_new_names_for_its_runs_alone():
    """The content that is hashed is what it was for every other method."""
    options = ("teleport.epochs=[0]", "teleport.seed=3")
    assert computed(resolve(composed("teleport=random", *options)))["teleport"]["revision"] == 3
    assert computed(resolve(composed("teleport=nullspace_paper")))["teleport"]["revision"] == 3
    assert computed(resolve(composed("teleport=auto")))["teleport"]["revision"] == 2
    for method in ("none", "levelset", "rescaling", "balance", "change_of_basis", "pseudo_teleport"):
        assert "revision" not in computed(resolve(composed(f"teleport={method}")))["teleport"]
    symmetry = resolve(composed("teleport=symmetry"))  # with step: fixed, as published
    assert "revision" not in computed(symmetry)["teleport"]
    symmetry.teleport.step = "cap"
    assert computed(symmetry)["teleport"]["revision"] == 2
    orbit = resolve(composed("experiment=symmetry/booth"))  # without a cap
    assert "revision" not in computed(orbit)["teleport"]
    orbit.teleport.relative_cap = 3.0
    assert computed(orbit)["teleport"]["revision"] == 2


def test_weights_count_by_their_content_and_not_by_their_path(tmp_path):
    for name, content in (("one", b"weights"), ("other", b"weights"), ("third", b"others")):
        (tmp_path / name).write_bytes(content)
    plain, one, other, third = (
        identity(resolve(composed(*weights)))
        for weights in ([], *([f"model.weights={tmp_path / name}"] for name in ("one", "other", "third")))
    )
    assert one == other
    assert len({plain, one, third}) == 3
    with pytest.raises(UserError, match=r"model\.weights=none_such\.pt cannot be read: No such file"):
        identity(resolve(composed("model.weights=none_such.pt")))


def test_a_scale_is_its_resolved_extent():
    quick = composed("data=mnist", "scale=quick")
    by_hand = composed("data=mnist", "scale=paper", "training.epochs=5", "data.train_samples=10000")
    OmegaConf.update(by_hand, "data.test_samples", quick.data.test_samples)
    assert identity(resolve(by_hand)) == identity(resolve(quick))
    assert identity(resolve(composed("data=mnist", "scale=paper"))) != identity(resolve(quick))


def test_a_folder_is_named_by_its_choices():
    folder = run_folder(resolve(composed("machine.runs=there", "seed=3", "teleport=nullspace")))
    assert folder.parent.name == "there"
    assert folder.name.startswith("digits-mlp-sgd-nullspace-s3-")


def test_a_folder_tells_the_options_of_one_model_or_method_apart():
    """The options are called by Hydra; the hash is that of the configuration without their names."""
    for option, name in (("mlp_small", "digits-mlp_small-sgd-none-s0-"), ("mlp", "digits-mlp-sgd-none-s0-")):
        config = composed(f"model={option}")
        unlabelled = identity(resolve(config))
        label_by_choices(config, {"model": option, "teleport": "none"})
        assert run_folder(resolve(config)).name == f"{name}{unlabelled}"
    given = composed("teleport=symmetry_corrected", "teleport.label=mine")
    label_by_choices(given, {"model": "mlp", "teleport": "symmetry_corrected"})
    assert run_folder(resolve(given)).name.startswith("digits-mlp-sgd-mine-s0-")


def test_the_identity_is_the_same_everywhere():
    """A change of this hash means that old runs are not found any more."""
    config = resolve(composed())
    assert identity(config) == identity(resolve(config))
    assert len(identity(config)) == 10
