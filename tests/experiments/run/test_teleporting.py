"""The events of a run: their random numbers depend on the seed and the number of the event alone."""

from __future__ import annotations

import copy

import pytest
import torch

from experiments.configuration.validate import resolve
from experiments.data.registry import build_task
from experiments.models.registry import build_model
from experiments.run.make_run import make_run
from experiments.run.methods import build_schedule, build_teleporter
from experiments.run.runs import load_table
from experiments.run.teleporting import Teleports
from tests.experiments.small import SMALL_TELEPORT, composed, small
from tests.terminal import Terminal

CPU = torch.device("cpu")
SMALL = ["data.train_samples=100", "data.test_samples=50", "teleport.batches=1", "teleport.samples=5"]


def moves(method: str, events: list[int], *options: str) -> list[torch.Tensor]:
    """The move of the hidden layer in each of these events, all from the same weights."""
    config = resolve(composed(f"teleport={method}", "model.widths=[24,24]", "teleport.epochs=[0]", *SMALL, *options))
    torch.manual_seed(0)
    task = build_task(config.data, CPU)
    model = build_model(config.model, task.spec)
    schedule = build_schedule(config.teleport, steps_per_epoch=10)
    teleports = Teleports(build_teleporter(config.teleport), schedule, task, config, CPU)
    found = []
    for event in events:
        moved = copy.deepcopy(model)
        teleports.make(event, moved)
        change = [one - other for one, other in zip(moved.parameters(), model.parameters(), strict=True)]
        found.append(torch.cat([each.detach().flatten() for each in change]))
    assert all(move.any() for move in found)
    return found


@pytest.mark.parametrize("method", ["random", "change_of_basis", "pseudo_teleport"])
def test_an_event_draws_the_same_whatever_came_before(method):
    first, second = moves(method, [0, 1])
    assert torch.equal(moves(method, [1])[0], second)
    assert not torch.equal(first, second)
    assert not torch.equal(moves(method, [1], "teleport.seed=5")[0], second)


@pytest.mark.parametrize("shown", [True, False])
def test_a_run_on_a_terminal_shows_its_events_unless_progress_is_off(shown, tmp_path, monkeypatch):
    terminal, overrides = Terminal(), [*SMALL_TELEPORT, "machine.device=cpu", "machine.threads=1"]
    silent = make_run(resolve(small(tmp_path / "silent", *overrides)))
    monkeypatch.setattr("sys.stderr", terminal.file)
    folder = make_run(resolve(small(tmp_path / "shown", *overrides, f"machine.progress={shown}")))
    text = terminal.read()
    terminal.close()
    assert ("\rnullspace: batch 1/2" in text) == shown
    assert (text == "") == (not shown)
    curves = [load_table(each, "curve").drop(columns="seconds") for each in (silent, folder)]
    assert curves[0].equals(curves[1])
