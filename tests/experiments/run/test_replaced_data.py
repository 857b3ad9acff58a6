"""A data file that is replaced: runs on the old content stay, and are not the answer for the new one."""

from __future__ import annotations

import logging
import os
import shutil

import numpy as np
import pytest

from experiments.data import data_files
from experiments.errors import UserError
from experiments.run.make_run import make_run
from experiments.run.runs import load_table, read_summary
from tests.experiments.small import small


def write_images(root, seed):
    draw = np.random.default_rng(seed)
    arrays = {}
    for split, samples in (("train", 120), ("test", 40)):
        arrays[f"x_{split}"] = draw.integers(0, 256, (samples, 28, 28, 1), np.uint8)
        arrays[f"y_{split}"] = np.arange(samples, dtype=np.int64) % 10
    root.mkdir(exist_ok=True)
    np.savez(root / "mnist.npz", **arrays)


@pytest.fixture
def run(tmp_path):
    """Makes the run on the file that is there."""
    write_images(tmp_path / "data", 0)

    def make(*overrides, runs="runs"):
        return make_run(small(tmp_path / runs, "data=mnist", f"data.root={tmp_path / 'data'}", "seed=0", *overrides))

    return make


def numbers(folder):
    return load_table(folder, "curve")[["train_loss", "test_loss"]].to_numpy().tolist()


def test_the_run_is_made_anew_and_the_former_one_stays(run, tmp_path, caplog):
    caplog.set_level(logging.INFO, "experiments")
    first = run()
    path = tmp_path / "data" / "mnist.npz"
    before, old, times = numbers(first), path.read_bytes(), path.stat()
    write_images(tmp_path / "data", 1)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy that keeps times
    assert path.stat().st_size == times.st_size
    caplog.clear()
    second = run()
    assert second != first
    assert "already done" not in caplog.text
    assert f"mnist.npz has other content than in the run {first.name}, which stays as it is" in caplog.text
    assert numbers(first) == before
    assert numbers(second) == numbers(run(runs="others")) != before
    assert run() == second
    assert f"already done: {second}" in caplog.text

    path.write_bytes(old)
    assert run() == first
    assert f"already done: {first}" in caplog.text


def test_the_same_content_elsewhere_or_later_is_the_same_run(run, tmp_path):
    first = run()
    os.utime(tmp_path / "data" / "mnist.npz")
    assert run() == first
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert run(f"data.root={tmp_path / 'copy'}") == first
    shutil.rmtree(tmp_path / "data")  # runs are looked at where their data are not
    assert run() == first


def test_a_run_of_earlier_code_stays_valid(run, tmp_path):
    first = run()
    (first / data_files.RECORD).unlink()
    write_images(tmp_path / "data", 1)
    assert run() == first


def test_a_run_that_was_stopped_does_not_go_on_with_other_data(run, tmp_path, monkeypatch):
    def stop(self, event, callback):
        raise KeyboardInterrupt

    when = ["teleport=nullspace", "teleport.epochs=[1]"]
    with monkeypatch.context() as patch:
        patch.setattr("experiments.run.training.Training._teleport", stop)
        with pytest.raises(KeyboardInterrupt):
            run(*when)
    (stopped,) = (tmp_path / "runs").iterdir()
    assert (stopped / "checkpoint.pt").exists()
    write_images(tmp_path / "data", 1)
    made = run(*when)
    assert made != stopped
    assert read_summary(made)["test_loss"] == read_summary(run(*when, runs="others"))["test_loss"]


def test_a_damaged_record_is_one_sentence(run):
    record = run() / data_files.RECORD
    record.write_text(record.read_text().replace('"stamp"', '"stomp"'))
    with pytest.raises(UserError, match=r"data_files\.json' is damaged or was changed.*delete the folder"):
        run()


def test_a_set_without_files_has_no_record(tmp_path):
    assert not (make_run(small(tmp_path)) / data_files.RECORD).exists()
