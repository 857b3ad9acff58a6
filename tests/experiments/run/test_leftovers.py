"""What a kill in the last moments of a run leaves goes with the next command that meets it."""

from __future__ import annotations

import pytest
from filelock import FileLock

from experiments.run.make_run import make_run
from tests.experiments.small import small

LEFT = ("checkpoint.pt", ".lock", ".curve.csv.host.17.tmp")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return runs, make_run(small(runs))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("left", [LEFT, LEFT[:1], LEFT[1:2], LEFT[2:]])
def test_of_a_finished_run_they_are_removed(made, left):
    runs, folder = made
    before = names(folder)
    for name in left:
        (folder / name).write_bytes(b"left")
    assert make_run(small(runs)) == folder
    assert names(folder) == before


def test_while_another_process_holds_the_lock_they_stay(made):
    runs, folder = made
    before = names(folder)
    (folder / "checkpoint.pt").write_bytes(b"left")
    with FileLock(folder / ".lock"):
        assert make_run(small(runs)) == folder
        assert (folder / "checkpoint.pt").exists()
    assert make_run(small(runs)) == folder
    assert names(folder) == before
