"""``rates=tuned`` sets what tuning found for both sides; the command line wins, and what was not tuned is told."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.configuration.config import register
from experiments.configuration.identity import identity
from experiments.configuration.tuned import HOW, use_tuned
from experiments.configuration.validate import resolve
from experiments.errors import UserError
from experiments.figures.runs import expand
from tests.experiments.small import CONF, SMALL

ROOT = Path(__file__).parents[3]
FOUND = {
    "digits": {
        "mlp": {
            "sgd": {
                "none": {"optimizer.lr": 0.25, "training.lr_warmup_steps": 5},
                "nullspace": {"optimizer.lr": 0.125, "teleport.lr": 3.0, "teleport.cap": 7.0},
                HOW: "by hand",
            },
            "adam": "not tuned",
        }
    }
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A copy of ``conf/`` with settings for one pair."""
    folder = shutil.copytree(CONF, tmp_path_factory.mktemp("tuned") / "conf")
    text = yaml.safe_dump({"defaults": ["suite", "_self_"], "tuned": FOUND})
    (folder / "rates" / "tuned.yaml").write_text(f"# own\n{text}")
    return folder


def used(own, *overrides):
    register()
    with initialize_config_dir(str(own), version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        use_tuned(config, choices, overrides)
        return resolve(config)


def test_each_side_has_its_own_settings(own):
    none, moved = used(own, "rates=tuned"), used(own, "rates=tuned", "teleport=nullspace")
    assert (none.optimizer.lr, none.training.lr_warmup_steps) == (0.25, 5)
    assert (moved.optimizer.lr, moved.teleport.lr, moved.teleport.cap) == (0.125, 3.0, 7.0)
    assert moved.training.lr_warmup_steps == 0


def test_the_command_line_wins(own):
    config = used(own, "rates=tuned", "optimizer.lr=0.5")
    assert (config.optimizer.lr, config.training.lr_warmup_steps) == (0.5, 5)


def test_other_tables_change_nothing(own):
    assert used(own).optimizer.lr == used(own, "rates=suite").optimizer.lr == 0.01


def test_a_tuned_run_is_the_run_with_these_settings(own):
    by_hand = used(own, "teleport=nullspace", "optimizer.lr=0.125", "teleport.lr=3", "teleport.cap=7")
    assert identity(used(own, "rates=tuned", "teleport=nullspace")) == identity(by_hand)


@pytest.mark.parametrize(
    "overrides",
    [("optimizer=adam",), ("optimizer=momentum",), ("teleport=random",), ("model=mlp_small",), ("data=mnist",)],
    ids=" ".join,
)
def test_what_was_not_tuned_is_told_with_the_command(own, overrides):
    with pytest.raises(UserError, match=r"is not tuned; tune it by python scripts/tune\.py \w+ \w+ \w+"):
        used(own, "rates=tuned", *overrides)


def test_a_run_of_a_figure_that_was_not_tuned_is_a_row_with_the_reason(own):
    register()
    grid = {"data": "digits", "rates": "tuned", "optimizer": ["sgd", "adam"], "teleport": "none"}
    with initialize_config_dir(str(own), version_base="1.3"):
        sgd, adam = expand([grid], [])
    assert (sgd.reason, sgd.config.optimizer.lr, sgd.labels["rates"]) == ("", 0.25, "tuned")
    assert "optimizer=adam teleport=none is not tuned" in adam.reason


def test_from_the_command_line(tmp_path):
    """Alone and in a sweep, with a table of one's own."""
    folder = tmp_path / "mine" / "rates"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump({"defaults": ["suite", "_self_"], "tuned": FOUND}))
    command = [
        sys.executable,
        "run.py",
        "-cd",
        str(tmp_path / "mine"),
        "rates=mine",
        *SMALL,
        f"machine.runs={tmp_path}",
    ]
    one = subprocess.run([*command, "optimizer=adam"], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert one.returncode == 2
    assert "optimizer=adam teleport=none is not tuned" in one.stderr
    both = [*command, "-m", "teleport=none,random"]
    many = subprocess.run(both, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert many.returncode == 1, many.stderr
    (table,) = (tmp_path / "sweeps").glob("*.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["error"]) for row in rows] == [False, True]
    with (Path(rows[0]["folder"]) / "curve.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates[-1] == 0.25
