"""From a figure's file over real runs to its table and picture."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from experiments import files
from experiments.errors import UserError
from experiments.figures import table
from experiments.figures.build import build, folder_of
from experiments.figures.composition import compose_config
from experiments.figures.redraw import draw
from experiments.run.runs import load_table
from tests.experiments.figures.conftest import DIGITS, FASTER, ROOT, conf, places
from tests.experiments.figures.tables import said

FIGURE = """# @package figure
defaults:
  - /schema/figure@_here_: figure
  - _self_
title: A figure of its own
claim: none
runs:
"""


def add_figure(folder, text):
    (folder / "figure" / "own").mkdir()
    (folder / "figure" / "own" / "small.yaml").write_text(FIGURE + text)
    return "figure=own/small"


def test_the_table_has_every_run_and_every_evaluation_of_it(made):
    rows = table.read(made / "fig8.csv")
    runs = rows.drop_duplicates("run")
    assert set(zip(runs["teleport"], runs["seed"], strict=True)) == {
        (teleport, seed)
        for teleport in ("none", "nullspace_paper", "nullspace", "random_matched")
        for seed in (0, 1, 2)
    }
    assert (rows["data"] == "digits").all()
    assert (rows["scale"] == "smoke").all()
    for run, own in rows[rows["event"] == "evaluation"].groupby("run"):
        curve = load_table(made.parents[2] / "runs" / run, "curve")
        for column in curve:
            np.testing.assert_array_equal(own[column].to_numpy(float), curve[column].to_numpy(float))


def test_the_table_has_every_teleport(made):
    rows = table.read(made / "fig8.csv")
    teleports = rows[rows["event"] == "teleport"]
    assert not (teleports["teleport"] == "none").any()
    # smoke warms up for one step of ten
    assert list(teleports.groupby(["teleport", "seed"])["epoch"].apply(list)) == [[0.1, 1.0]] * 9
    assert (teleports.groupby("run")["moved_layers"].first() >= 1).all()
    for run, own in teleports.groupby("run"):
        with (made.parents[2] / "runs" / run / "teleport_layers.csv").open() as file:
            moved = Counter(row["event"] for row in csv.DictReader(file) if float(row["relative_change"]) > 0)
        assert own["moved_layers"].tolist() == [moved["0"], moved["1"]]


def test_both_rules_and_the_control_are_told_apart_and_end_elsewhere(made):
    rows = table.read(made / "fig8.csv")
    last = rows[(rows["event"] == "evaluation") & (rows["epoch"] == 2) & (rows["seed"] == 0)]
    assert last["train_loss"].nunique() == 4


def test_the_picture_shows_mean_and_range_over_seeds(made):
    with conf():
        figure = compose_config(DIGITS).figure
    picture = draw(figure, table.read(made / "fig8.csv"))
    rows = pd.read_csv(made / "fig8.csv")
    for axes, loss in zip(picture.axes, ("train_loss", "test_loss"), strict=True):
        # no teleport is the dashed line
        (line,) = [line for line in axes.lines if line.get_linestyle() == "--"]
        drawn = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
        shades = np.concatenate([path.vertices for shade in axes.collections for path in shade.get_paths()])
        assert set(drawn) == {0.0, 1.0, 2.0}
        for epoch, mean in drawn.items():
            values = [
                load_table(made.parents[2] / "runs" / run, "curve").set_index("epoch")[loss][epoch]
                for run in rows.loc[rows["teleport"] == "none", "run"].unique()
            ]
            assert len(values) == 3
            assert mean == pytest.approx(statistics.fmean(values), rel=1e-12)
            for edge in (min(values), max(values)):
                assert np.isclose(shades, [epoch, edge], rtol=1e-9).all(axis=1).any()


def test_the_origin_says_how_it_was_made(made):
    origin = json.loads((made / "provenance.json").read_text())
    assert origin["figure"] == "nullspace/fig8"
    assert origin["command"].startswith("python run.py figure=nullspace/fig8 scale=smoke data=digits")
    assert "machine" not in origin["command"]
    assert origin["failed"] == []
    rows = table.read(made / "fig8.csv")
    assert set(origin["runs"]) == set(rows["run"])
    for name, run in origin["runs"].items():
        recorded = files.read_json(made.parents[2] / "runs" / name / "environment.json", "")
        assert origin["environments"][run["environment"]] == recorded


def test_what_is_there_is_not_made_again_and_gives_the_same(made, tmp_path):
    folder = made.parents[2]
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/model.pt")}
    with conf():
        overrides = [*DIGITS, *FASTER, f"machine.runs={folder / 'runs'}", f"machine.results={tmp_path}"]
        again = build(overrides)
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/model.pt")} == before
    for name in ("fig8.csv", "fig8.pdf", "fig8.png"):
        assert (again / name).read_bytes() == (made / name).read_bytes()


def test_a_run_that_fails_is_a_row_with_its_reason_and_said_in_the_picture(own_conf, tmp_path):
    overrides = [
        add_figure(own_conf, "  - {data: digits, model: [mlp, transformer]}\ndraw: {name: curves}\n"),
        *("scale=smoke", *places(tmp_path)),
    ]
    with conf(own_conf):
        folder = build(overrides)
        rows = table.read(folder / "small.csv")
        picture = draw(compose_config(overrides).figure, rows)
    (failed,) = rows[rows["reason"] != ""].to_dict("records")
    assert failed["model"] == "transformer"
    assert "fitting models: mlp, cnn, resnet" in failed["reason"]
    assert "digits" in set(rows.loc[rows["model"] == "mlp", "data"])
    assert "no result of no teleport, seed 0: model 'transformer' takes" in said(picture)
    assert json.loads((folder / "provenance.json").read_text())["failed"][0]["labels"]["model"] == "transformer"


def test_a_reason_names_no_folder_of_the_machine(own_conf, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mnist.npz").write_bytes(b"damaged")
    overrides = [
        add_figure(own_conf, "  - {data: [digits, mnist], model: mlp}\ndraw: {name: curves}\n"),
        *("scale=smoke", f"data.root={tmp_path / 'data'}", *places(tmp_path)),
    ]
    with conf(own_conf):
        folder = build(overrides)
    assert "<data.root>" in table.read(folder / "small.csv")["reason"].iloc[-1]
    for name in ("small.csv", "provenance.json"):
        assert str(tmp_path) not in (folder / name).read_text()


def test_a_figure_without_any_result_writes_nothing(own_conf, tmp_path):
    overrides = [
        add_figure(own_conf, "  - {data: digits, model: transformer}\ndraw: {name: curves}\n"),
        *("scale=smoke", *places(tmp_path)),
    ]
    with conf(own_conf), pytest.raises(UserError, match="no run of the figure 'own/small' has a result"):
        build(overrides)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  - {data: digits}\ndraw: {name: curvs}\n", "unknown drawing 'curvs'.*did you mean 'curves'"),
        ("  - {data: digits}\ndraw: {name: curves, xx: step}\n", "unknown option of the drawing 'curves' 'xx'"),
        ("  - {data: digits}\nmeasure: {name: none}\ndraw: {name: curves}\n", "unknown measure 'none'"),
        ("  - {data: digits}\nmeasure: {name: curves, x: 1}\ndraw: {name: curves}\n", "'curves' takes no options"),
        (
            "  - {data: digits}\nmeasure: {name: error_control, steps: 1}\ndraw: {name: curves}\n",
            "needs .*'thresholds'",
        ),
        ("  - {data: digitss}\ndraw: {name: curves}\n", "unknown option of data 'digitss'"),
        ("  - {optimizer.lrr: 1}\ndraw: {name: curves}\n", "unknown key of optimizer"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence_before_anything_runs(own_conf, tmp_path, text, message):
    overrides = [add_figure(own_conf, text), "scale=smoke", *places(tmp_path)]
    with conf(own_conf), pytest.raises(UserError, match=message):
        build(overrides)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("scale", "overrides", "expected"),
    [
        ("quick", [], "nullspace/fig8"),
        ("quick", ["scale=quick", "machine.jobs=2", "data.root=/somewhere"], "nullspace/fig8"),
        ("smoke", ["scale=smoke"], "nullspace/fig8-smoke"),
    ],
)
def test_a_scale_has_a_folder_of_its_own(tmp_path, scale, overrides, expected):
    folder = folder_of("nullspace/fig8", scale, ["figure=nullspace/fig8", *overrides], tmp_path)
    assert folder == tmp_path / expected


def test_a_figure_that_is_changed_does_not_take_the_place_of_the_whole_one(tmp_path):
    one = folder_of("nullspace/fig8", "quick", ["figure=nullspace/fig8", "seed=0"], tmp_path)
    other = folder_of("nullspace/fig8", "quick", ["figure=nullspace/fig8", "seed=1"], tmp_path)
    assert len({one, other, tmp_path / "nullspace/fig8"}) == 3


@pytest.mark.slow
def test_run_py_makes_a_figure_in_processes_side_by_side(tmp_path):
    command = [sys.executable, "run.py", *DIGITS, *FASTER, "teleport=none", "machine.jobs=2", *places(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").rglob("fig8.csv")
    rows = table.read(path)
    assert list(rows["seed"].unique()) == [0, 1, 2]
    assert (rows["reason"] == "").all()
    for run, own in rows.groupby("run"):
        np.testing.assert_array_equal(own["train_loss"], load_table(tmp_path / "runs" / run, "curve")["train_loss"])
    assert {file.suffix for file in path.parent.iterdir()} == {".csv", ".json", ".pdf", ".png"}
    assert "fig8.png" in done.stdout
