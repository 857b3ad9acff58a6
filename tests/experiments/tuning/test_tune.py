"""A tiny tuning of real runs: equal budgets, an interruption, the tables, and the winners in ``rates=...``."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.configuration.config import register
from experiments.configuration.tuned import use_tuned
from experiments.configuration.validate import resolve
from experiments.errors import UserError
from experiments.figures import table
from experiments.figures.runs import FigureRun
from experiments.run.runs import load_table, read_summary
from experiments.tuning.arms import GROWTHS, OF_TELEPORT, RATES, arm
from experiments.tuning.plan import Tuning, check
from experiments.tuning.trials import measure
from experiments.tuning.tune import tune
from tests.commands import finished, started
from tests.experiments.small import CONF, composed

ROOT = Path(__file__).parents[3]
REASON = "the trials need Optuna: pip install -e '.[tune]'"


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason=REASON)


def tiny(folder, **changes):
    """Two trials of one run a side, of 16 steps each."""
    overrides = ["scale=smoke", "machine.threads=1", "machine.progress=false"]
    overrides += [f"machine.runs={folder / 'runs'}", f"machine.results={folder / 'results'}"]
    own = {"trials": 2, "seeds": [101], "overrides": overrides, "into": folder / "rates" / "mine.yaml", "at": "end"}
    return Tuning("digits", "mlp_small", "sgd", **own | changes)


def tuned(tuning):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return tune(tuning)


class Stop(logging.Handler):
    """Ctrl-C as a line is logged."""

    def __init__(self, line):
        super().__init__()
        self.line = line

    def emit(self, record):
        if record.getMessage().lstrip().startswith(self.line):
            raise KeyboardInterrupt


def interrupted(tuning, line):
    log, handler = logging.getLogger("experiments"), Stop(line)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with pytest.raises(KeyboardInterrupt):
            tuned(tuning)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@pytest.mark.slow
def test_both_sides_have_the_same_budget_and_an_interruption_changes_nothing(optuna, tmp_path):
    whole = tuned(tiny(tmp_path / "whole"))
    runs = (tmp_path / "whole" / "runs").glob("digits*")
    for run in runs:  # which are not made again: only the trials are
        shutil.copytree(run, tmp_path / "stopped" / "runs" / run.name)
    for line in ("trial 1 of 2, teleport=none", "trial 2 of 2, teleport=nullspace"):
        interrupted(tiny(tmp_path / "stopped"), line)
    stopped = tuned(tiny(tmp_path / "stopped"))
    rows, again = table.read(whole), table.read(stopped)
    assert whole.name == stopped.name == "digits-mlp_small-sgd-smoke.csv"
    pd.testing.assert_frame_equal(rows.drop(columns="seconds"), again.drop(columns="seconds"))
    assert dict(rows.groupby("teleport").size()) == {"none": 2, "nullspace": 2}
    assert set(rows["seed"]) == {101}
    assert len(set(rows["run"])) == 4
    assert sorted(path.name for path in (tmp_path / "stopped" / "runs").glob("digits*")) == sorted(rows["run"])

    for (teleport, trial), own in rows.groupby(["teleport", "trial"]):
        curves = [load_table(tmp_path / "whole" / "runs" / run, "curve") for run in own["run"]]
        losses = [curve["train_loss"].iloc[-1] for curve in curves]
        assert own["train_loss"].tolist() == losses
        assert own["score"].tolist() == pytest.approx([losses[0]])
        assert trial != 0 or set(own["optimizer.lr"]) == {0.01}, "the suite's own setting comes first"
        assert own["teleport.cap"].isna().all() == (teleport == "none")
    for _, side in rows.groupby("teleport"):
        assert set(side.loc[side["chosen"], "score"]) == {side["score"].min()}

    found = yaml.safe_load((tmp_path / "whole" / "rates" / "mine.yaml").read_text())["tuned"]["digits"]["mlp_small"][
        "sgd"
    ]
    assert set(found["none"]) == {"optimizer.lr", "training.lr_warmup_steps"}
    assert set(found["nullspace"]) == {"optimizer.lr", "teleport.lr", "teleport.cap"}
    assert (found["how"]["trials"], found["how"]["seeds"], found["how"]["scale"]) == (2, [101], "smoke")
    used_by_runs(tmp_path / "whole" / "rates" / "mine.yaml", rows, tmp_path)


def used_by_runs(winners, rows, tmp_path):
    """``rates=mine`` with a tuning seed is the winning trial's run, for both sides."""
    from experiments.configuration.identity import run_folder

    conf = shutil.copytree(CONF, tmp_path / "conf")
    shutil.copy(winners, conf / "rates" / "mine.yaml")
    for teleport in ("none", "nullspace"):
        overrides = ["data=digits", "model=mlp_small", "rates=mine", f"teleport={teleport}", "scale=smoke", "seed=101"]
        overrides += ["training.last_batch=spread"]
        with initialize_config_dir(str(conf), version_base="1.3"):
            config = compose("config", overrides, return_hydra_config=True)
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        use_tuned(config, choices, overrides)
        digits = run_folder(resolve(config)).name.rpartition("-")[2]
        chosen = rows[rows["chosen"] & (rows["teleport"] == teleport) & (rows["seed"] == 101)]
        assert [name.rpartition("-")[2] for name in chosen["run"]] == [digits]


@pytest.mark.slow
def test_losses_count_when_the_seconds_of_the_steps_are_used_up(optuna, tmp_path):
    """And a second call with more trials goes on, for all sides to the same number."""
    first = table.read(tuned(tiny(tmp_path, trials=1, at="seconds", seeds=[100])))
    without = first[first["teleport"] == "none"].iloc[0]
    assert without["loss"] == pytest.approx(without["train_loss"])
    tuned(tiny(tmp_path, trials=1, at="seconds", seeds=[100], teleports=["gentle"]))
    rows = table.read(tuned(tiny(tmp_path, trials=2, at="seconds", seeds=[100])))
    assert dict(rows.groupby("teleport").size()) == {"none": 2, "nullspace": 2}
    for row in rows.to_dict("records"):
        folder = tmp_path / "runs" / row["run"]
        curve, steps = load_table(folder, "curve"), read_summary(folder)["training_seconds"]
        assert (steps < row["seconds"]) == (row["teleport"] != "none")
        between = np.interp(steps, curve["seconds"], np.log(curve["train_loss"]))
        assert row["loss"] == pytest.approx(math.exp(between))
    with pytest.raises(UserError, match=r"were made with seeds \[100\], not \[102\]"):
        tuned(tiny(tmp_path, at="seconds", seeds=[102]))
    winners = yaml.safe_load((tmp_path / "rates" / "mine.yaml").read_text())["tuned"]["digits"]["mlp_small"]["sgd"]
    assert set(winners) == {"none", "nullspace", "gentle", "how"}


@pytest.mark.slow
def test_a_score_is_the_geometric_mean_over_seeds(optuna, tmp_path):
    rows = table.read(tuned(tiny(tmp_path, trials=1, seeds=[100, 102])))
    for _, own in rows.groupby("teleport"):
        first, second = own["loss"]
        assert own["score"].tolist() == pytest.approx([math.sqrt(first * second)] * 2)


@pytest.mark.parametrize(
    ("steps", "at", "diverged", "loss"),
    [
        (1.0, "seconds", False, 2.0),
        (2.0, "seconds", False, 1.0),
        (3.0, "seconds", False, 0.5),
        (4.0, "seconds", False, 0.25),
        (1.0, "end", False, 0.25),
        (1.0, "seconds", True, 4.0),
    ],
)
def test_a_loss_counts_at_a_place_and_a_divergence_as_the_start(tmp_path, steps, at, diverged, loss):
    """Halved each second: between evaluations the logarithm is straight."""
    rows = pd.DataFrame(
        {"step": range(3), "epoch": range(3), "seconds": [0.0, 2.0, 4.0], "train_loss": [4.0, 1.0, 0.25]}
    )
    rows.assign(train_metric=0, test_loss=3.0, test_metric=0, lr=0.1).to_csv(tmp_path / "curve.csv", index=False)
    (tmp_path / "summary.json").write_text(
        json.dumps({"diverged": diverged, "seconds": 4.0, "training_seconds": steps})
    )
    where = {"device_name": "it", "device": "cpu", "threads": 1, "packages": {"torch": "2"}}
    (tmp_path / "environment.json").write_text(json.dumps(where))
    found = measure(FigureRun({}, composed("seed=107"), tmp_path), at)
    assert (found.loss, found.train_loss, found.seconds) == (pytest.approx(loss), 0.25, 4.0)
    assert (found.seed, found.diverged, found.hardware) == (107, diverged, "it (cpu), 1 thread, torch 2")


def test_a_file_of_trials_that_is_damaged_is_told(optuna, tmp_path):
    (tmp_path / "runs" / "tuning").mkdir(parents=True)
    (tmp_path / "runs" / "tuning" / "digits-mlp_small-sgd-smoke.db").write_bytes(b"nothing" * 1000)
    with pytest.raises(UserError, match=r"digits-mlp_small-sgd-smoke\.db' cannot be read: .*; remove it to begin anew"):
        tuned(tiny(tmp_path))


def test_a_run_that_fails_stops_the_tuning_and_leaves_no_trial(optuna, tmp_path):
    bad = tiny(tmp_path)
    bad = Tuning("mnist", "mlp_small", "sgd", bad.into, overrides=[*bad.overrides, f"data.root={tmp_path / 'none'}"])
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "mnist").write_text("no folder")
    with pytest.raises(UserError, match="a run of a trial failed, so tuning stops"):
        tuned(bad)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [3, 100]}, "the seed 3 is one of those that results are reported for"),
        ({"seeds": [100, 100]}, "a seed is given twice"),
        ({"trials": 0}, "at least one trial"),
        ({"teleports": ["none"]}, "give the teleports to tune besides none"),
        ({"teleports": []}, "give the teleports to tune besides none"),
        ({"sampler": "grid"}, "unknown sampler 'grid'"),
        ({"at": "epochs"}, "unknown place of the loss 'epochs'"),
        ({"overrides": ["model.widths=[3]"]}, r"'model.widths=\[3\]' is not for tuning"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        check(tiny(tmp_path, **changes))


@pytest.mark.parametrize(
    ("teleport", "keys"),
    [
        ("none", ["optimizer.lr", "training.lr_warmup_steps"]),
        ("nullspace", ["optimizer.lr", "teleport.lr", "teleport.cap"]),
        ("gentle", ["optimizer.lr", "teleport.lr", "teleport.relative_cap"]),
        ("random", ["optimizer.lr", "teleport.length", "teleport.cap"]),
        ("random_gentle", ["optimizer.lr", "teleport.length"]),
    ],
)
def test_what_a_side_may_choose(teleport, keys):
    config = resolve(composed(f"teleport={teleport}"))
    side = arm(teleport, config, 45)
    assert side.keys == keys
    assert side.ranges["optimizer.lr"] == (RATES[0] * 0.01, RATES[1] * 0.01)
    for key, (low, high) in side.ranges.items():
        assert low <= side.start[key] <= high
        if key.startswith("teleport."):
            assert (low, high) in (GROWTHS, tuple(factor * side.start[key] for factor in OF_TELEPORT))


def test_settings_are_rounded_and_a_warm_up_is_in_steps():
    side = arm("none", resolve(composed()), 45)
    parameters = {"optimizer.lr": 0.0123456, "training.lr_warmup_steps": 0.3}
    assert side.settings(parameters) == {"optimizer.lr": 0.0123, "training.lr_warmup_steps": 14}


def test_winners_leave_the_rest_of_a_table(tmp_path):
    from experiments.tuning.tables import write_winners

    path = shutil.copy(CONF / "rates" / "tuned.yaml", tmp_path / "tuned.yaml")
    before = yaml.safe_load(Path(path).read_text())
    pair = {"data": "mnist", "model": "mlp", "optimizer": "sgd"}
    write_winners(Path(path), pair, [], {"trials": 0})
    after = yaml.safe_load(Path(path).read_text())
    old = before["tuned"]["mnist"]["mlp"].pop("sgd")
    sides = {side: found for side, found in old.items() if side != "how"} if isinstance(old, dict) else {}
    assert after["tuned"]["mnist"]["mlp"].pop("sgd") == {**sides, "how": {"trials": 0}}
    assert after == before
    assert Path(path).read_text().startswith("# What")
    Path(path).write_text("tuned: 3")
    with pytest.raises(UserError, match="is no table of tuned settings"):
        write_winners(Path(path), pair, [], {})


@pytest.mark.slow
def test_a_killed_tuning_goes_on(optuna, tmp_path):
    command = [sys.executable, "-u", "scripts/tune.py", "digits", "mlp_small", "sgd", "--trials", "2", "--at", "end"]
    command += ["--seeds", "101"]
    whole = tiny(tmp_path / "whole")
    stopped = tiny(tmp_path / "stopped")
    expected = table.read(tuned(whole))
    arguments = [*command, "--into", str(stopped.into), *stopped.overrides]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with started(arguments, cwd=ROOT, env=environment) as running:
        for line in running.stdout:
            if line.startswith("trial 2 of 2, teleport=none"):
                running.send_signal(signal.SIGKILL)
                break
    assert running.returncode == -signal.SIGKILL
    done = finished(arguments, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    found = table.read(tmp_path / "stopped" / "results" / "tuning" / "digits-mlp_small-sgd-smoke.csv")
    pd.testing.assert_frame_equal(found.drop(columns="seconds"), expected.drop(columns="seconds"))
