from __future__ import annotations

import json
import logging
import math
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from experiments.configuration import identity
from experiments.configuration.identity import run_folder
from experiments.configuration.validate import resolve
from experiments.data.published import SERIES
from experiments.errors import UserError
from experiments.run.make_run import make_run
from experiments.run.records import COLUMNS
from experiments.run.runner import pick_device
from experiments.run.runs import complete, folder_of, load_table
from tests.commands import started
from tests.experiments.small import SMALL, SMALL_TELEPORT, composed, small

TABLES = {name: columns for name, columns in COLUMNS.items() if name != "positions"}  # a model of few parameters has it
ROOT = Path(__file__).parents[3]
FILES = {
    "config.yaml",
    "environment.json",
    "summary.json",
    "curve.png",
    "model.pt",
    *(f"{name}.csv" for name in TABLES),
}


def test_a_run_leaves_its_files_whole(tmp_path):
    folder = make_run(small(tmp_path, *SMALL_TELEPORT))
    assert {file.name for file in folder.iterdir()} == FILES
    for name, columns in TABLES.items():
        assert (folder / f"{name}.csv").read_text().splitlines()[0] == ",".join(columns)
    summary = json.loads((folder / "summary.json").read_text())
    last = load_table(folder, "curve").iloc[-1]
    assert summary["test_loss"] == last.test_loss
    assert summary["seconds"] == last.seconds == summary["training_seconds"] + summary["teleport_seconds"]
    assert summary["teleport_seconds"] > 0
    assert summary["events"] == 2
    assert summary["relative_change"] > 0
    assert summary["parameters"] == 64 * 24 + 24 + 24 * 10 + 10
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["threads"] == torch.get_num_threads()


def test_the_recorded_configuration_makes_the_same_run(tmp_path):
    folder = make_run(small(tmp_path))
    recorded = OmegaConf.load(folder / "config.yaml")
    assert recorded.optimizer.lr == 0.01  # resolved, no interpolation
    assert recorded.model.widths == [24]


def test_the_same_again_says_so_and_changes_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "experiments")
    folder = make_run(small(tmp_path))
    assert "scale quick, cpu" in caplog.text
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    caplog.clear()
    assert make_run(small(tmp_path)) == folder
    assert caplog.messages == [f"already done: {folder}"]
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_data_that_are_not_there_are_told_of_before_anything_else(tmp_path, monkeypatch, caplog):
    nowhere = replace(SERIES["etth1"].file, urls=("http://127.0.0.1:9/etth1.csv",))  # where nobody listens
    monkeypatch.setitem(SERIES, "etth1", replace(SERIES["etth1"], file=nowhere))
    caplog.set_level(logging.INFO, "experiments")
    with pytest.raises(UserError, match=r"data set 'etth1' is not at .* and cannot be fetched") as caught:
        make_run(composed(f"machine.runs={tmp_path / 'runs'}", f"data.root={tmp_path}", "data=etth1", "model=mlp"))
    assert "\n" not in str(caught.value)
    assert caplog.messages == []
    assert not list(tmp_path.iterdir())


def test_a_run_is_found_by_its_hash_whatever_its_folder_is_called(tmp_path, caplog):
    """Names of folders have changed, hashes have not; another seed is another run."""
    folder = make_run(small(tmp_path))
    renamed = folder.rename(folder.with_name(f"as-it-was-called-once-s0-{folder.name.rpartition('-')[2]}"))
    caplog.set_level(logging.INFO, "experiments")
    assert make_run(small(tmp_path)) == renamed
    assert caplog.messages == [f"already done: {renamed}"]
    assert folder_of(resolve(small(tmp_path, "seed=1"))) not in (folder, renamed)


def test_a_configuration_is_resolved_and_hashed_once(tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(
        identity, "identity", lambda config, data="", own=identity.identity: hashed.append(1) or own(config, data)
    )
    assert complete(make_run(small(tmp_path)))
    assert len(hashed) == 1


def test_a_run_that_another_process_makes_is_waited_for(tmp_path, caplog):
    """It is released after half a second, as if the other process had failed: then this one makes the run."""
    caplog.set_level(logging.INFO, "experiments")
    folder = run_folder(resolve(small(tmp_path)))
    folder.mkdir()
    other = FileLock(folder / ".lock", thread_local=False)
    other.acquire()
    release = threading.Timer(0.5, other.release)
    release.start()
    assert complete(make_run(small(tmp_path)))
    release.join()
    assert caplog.messages.count(f"waiting: another process is making the run in {folder}") == 1
    assert not (folder / ".lock").exists()


def test_a_run_that_another_process_has_made_meanwhile_is_taken(tmp_path, monkeypatch, caplog):
    """Two processes at once: both return the folder, and one of them has trained."""
    config = [f"machine.runs={tmp_path}", *SMALL]
    command = [sys.executable, "run.py", *config]
    with started(command, cwd=ROOT) as one, started(command, cwd=ROOT) as other:
        both = [one, other]
        said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("\ndone: " in text for text in said) == 1
    assert sum("already done: " in text for text in said) == 1


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["optimizer.lr=-1"], "optimizer.lr must be"),
        (["data.crop=-1"], "data.crop must be"),
        (["model.activation=none_such"], "unknown model.activation 'none_such'"),
        (["model=torchvision", "model.arch=none_such"], "unknown model.arch 'none_such'"),
        (["model=torchvision", "model.arch=alexnet"], "model.arch=alexnet does not take images of 8x8"),
        (["data=rosenbrock"], "model 'mlp' takes images, sequences and series"),
        (["teleport=symmetry_corrected", "teleport.lr=1"], "teleport=symmetry does not go with model=mlp"),
        (["model=point", "model.start=[1.0]"], "model 'point' takes a test function"),
    ],
)
def test_a_mistake_is_told_before_anything_else_and_leaves_no_folder_behind(tmp_path, caplog, overrides, sentence):
    caplog.set_level(logging.INFO, "experiments")
    with pytest.raises(UserError) as caught:
        make_run(composed(f"machine.runs={tmp_path / 'runs'}", "scale=smoke", *overrides))
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
    assert caplog.messages == []
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_that_is_damaged_is_named(tmp_path):
    folder = run_folder(resolve(small(tmp_path)))
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(b"half a checkp")
    with pytest.raises(UserError, match=r"checkpoint\.pt' is damaged"):
        make_run(small(tmp_path))
    (folder / "checkpoint.pt").unlink()
    assert complete(make_run(small(tmp_path)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_here_is_one_sentence():
    with pytest.raises(UserError, match=r"machine\.device=cuda:3 is not here"):
        pick_device("cuda:3")
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("kind", ["xpu", "mps"])
def test_accelerators_other_than_cuda_are_found_by_torch(kind, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert pick_device(kind) == torch.device(kind)
    assert pick_device("auto") == torch.device("cpu" if kind == "mps" else kind)
    with pytest.raises(UserError, match=rf"machine\.device={kind}:1 is not here: torch sees 1 {kind.upper()} devices"):
        pick_device(f"{kind}:1")
    with pytest.raises(UserError, match="torch sees 0 CUDA devices"):
        pick_device("cuda")


def test_a_picture_says_what_happened(tmp_path):
    """A no-op, a divergence and a note are in the picture: it differs from the one without."""
    from experiments.run.evaluation import Evaluation
    from experiments.run.pictures import draw_curve
    from experiments.run.records import Records

    records = Records()
    records.add_evaluation(0, 0.1, Evaluation(2.0, 0.1, 2.1, 0.1))
    pictures = set()
    for note, diverged in (("", None), ("a fragment", None), ("", 3)):
        records.diverged_step = diverged
        draw_curve(tmp_path / "curve.png", records, "a title", note)
        pictures.add((tmp_path / "curve.png").read_bytes())
    assert len(pictures) == 3


@pytest.mark.parametrize(
    ("losses", "log"),
    [([2.3, 2.0], False), ([2.3, 0.2], True), ([2.3, 0.0], False), ([math.inf, 2.3, None, 0.2], True), ([], False)],
)
def test_a_curve_over_decades_has_a_logarithmic_axis(losses, log):
    from experiments.run.pictures import spans_decades

    assert spans_decades(losses) is log
