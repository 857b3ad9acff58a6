"""Runs side by side: which are chosen, what is said to differ, and that both pictures hold their numbers."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.run.make_run import make_run
from experiments.show.choose import choose
from experiments.show.differences import differing, lines
from experiments.show.page import write
from experiments.show.panels import panels
from tests.experiments.small import SMALL_TELEPORT, small

MAIN = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "show.py"))["main"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four runs: two seeds without teleports, one with, one with another rate."""
    runs = tmp_path_factory.mktemp("show")
    for overrides in (["seed=0"], ["seed=1"], SMALL_TELEPORT, ["optimizer.lr=0.5"]):
        make_run(small(runs, *overrides))
    return runs


def names(runs):
    return sorted((run.settings["seed"], run.settings["teleport.name"], run.settings["optimizer.lr"]) for run in runs)


def test_conditions_choose_runs_by_names_numbers_and_wildcards(root):
    assert len(choose([], root)) == len(choose([str(root)], Path("nowhere"))) == 4
    assert names(choose(["teleport=null*"], root)) == [(0, "nullspace", 0.01)]
    assert names(choose(["teleport=none", "optimizer.lr=1e-2"], root)) == [(0, "none", 0.01), (1, "none", 0.01)]
    assert names(choose(["optimizer.lr=0.5,0.7", "data=digits"], root)) == [(0, "none", 0.5)]
    one = next(iter(root.glob("*nullspace*")))
    assert names(choose([str(one)], Path("nowhere"))) == [(0, "nullspace", 0.01)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["teleport=symmetry"], "none of the 4 runs has teleport=symmetry"),
        (["optimiser.lr=1"], "did you mean 'optimizer.lr'"),
        (["missing"], "'missing' is no run and has none in it"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(root, words, said, tmp_path, capsys):
    with pytest.raises(UserError, match=re.escape(said)):
        choose(words, root)
    assert MAIN([*words, "--runs", str(root), "--out", str(tmp_path / "it")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_only_what_the_names_do_not_decide_is_said_to_differ(root):
    both = choose(["optimizer.lr=0.01"], root)
    assert differing(both) == ["teleport.name"]
    assert {line: len(own) for line, own in lines(both, differing(both)).items()} == {"no teleport": 2, "nullspace": 1}
    assert differing(choose(["teleport=none"], root)) == ["optimizer.lr"]
    assert differing(choose([], root)) == ["teleport.name", "optimizer.lr"]
    assert differing(choose(["teleport=nullspace"], root)) == []


def test_the_panels_of_events_are_those_of_the_tables(root):
    (run,) = choose(["teleport=nullspace"], root)
    *_, (growth, drift, moved) = panels([run])
    batches = pd.read_csv(run.folder / "teleports.csv")
    before, after = (batches[batches["event"] == 0][f"gradient_norm_{moment}"].mean() for moment in ("before", "after"))
    assert growth.values(run)["value"].iloc[0] == pytest.approx(after / before)
    event = pd.read_csv(run.folder / "teleport_events.csv").iloc[1]
    assert drift.values(run)["value"].iloc[1] == pytest.approx(event["test_loss_after"] / event["test_loss_before"] - 1)
    layers = pd.read_csv(run.folder / "teleport_layers.csv")
    assert moved.values(run)["value"].tolist() == [
        (layers[layers["event"] == number]["relative_change"] > 0).sum() for number in (0, 1)
    ]


def test_the_page_holds_every_curve_and_asks_no_server(root):
    pytest.importorskip("plotly")
    runs = choose([], root)
    page = write(lines(runs, differing(runs)), differing(runs))
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    for run in runs:
        assert run.folder.name in page
        assert json.dumps(run.curve["test_loss"].tolist()).replace(" ", "")[1:60] in page.replace(" ", "")


def test_the_script_tells_runs_and_writes_both_files(root, tmp_path, capsys):
    pytest.importorskip("plotly")
    assert MAIN(["teleport=*", "--runs", str(root), "--out", str(tmp_path / "deep" / "it")]) == 0
    table, png, page = capsys.readouterr().out.rsplit("\n", 3)[:3]
    assert "optimizer.lr" in table
    assert "nullspace" in table
    assert Path(png).read_bytes().startswith(b"\x89PNG")
    assert Path(page).read_text().startswith("<!doctype html>")
