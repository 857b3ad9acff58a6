"""All figures of a paper by one command, in their order, whatever happens to one of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from experiments.configuration.options import options
from experiments.errors import UserError
from experiments.figures.names import named

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "reproduce.py"))
MAIN = SCRIPT["main"]


def test_a_paper_is_all_its_figures_by_their_numbers():
    figures = named(["nullspace"])
    assert sorted(figures) == [figure for figure in options()["figure"] if figure.startswith("nullspace/")]
    places = [figures.index(f"nullspace/{name}") for name in ("fig6a", "fig6b", "fig8", "fig11")]
    assert places == sorted(places)


def test_a_figure_named_twice_is_made_once():
    assert named(["nullspace/fig11", "nullspace/fig6a", "nullspace/fig11"]) == ["nullspace/fig11", "nullspace/fig6a"]
    assert named(["nullspace/fig11", "nullspace"])[0] == "nullspace/fig11"


@pytest.mark.parametrize(
    ("words", "said"), [(["nullspace/fig88"], "did you mean 'nullspace/fig8'"), (["scale=smoke"], "no figure is named")]
)
def test_a_name_that_is_none_starts_nothing(words, said, capsys):
    assert MAIN(words) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


def test_a_figure_that_fails_does_not_stop_the_others(tmp_path, capsys):
    """A negative number of epochs fails every run of the first; the second needs no run."""
    places = [f"machine.results={tmp_path / 'results'}", f"machine.runs={tmp_path / 'runs'}"]
    assert MAIN(["nullspace/quick", "nullspace/fig11", "training.epochs=-1", *places]) == 1
    printed = capsys.readouterr()
    *_, first, second = printed.out.splitlines()
    assert first.startswith("nullspace/quick: failed: no run of the figure 'nullspace/quick' has a result")
    assert (Path(second.removeprefix("nullspace/fig11: ")) / "fig11.png").stat().st_size > 0
    assert "training.epochs must be a whole number from 0" in printed.err


def test_a_mistake_is_a_user_error():
    with pytest.raises(UserError):
        named([])
