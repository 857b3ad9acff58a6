"""What trackers were told, read back with their own libraries, and that no tracker can cost a run its tables."""

from __future__ import annotations

import importlib.util
import struct
import sys

import pandas as pd
import pytest

from experiments.configuration.identity import identity
from experiments.configuration.validate import resolve
from experiments.errors import UserError
from experiments.run.make_run import make_run
from experiments.run.training import Training
from experiments.tracking import trackers
from experiments.tracking.rows import CURVE, EVENT, MOVED, NORMS, flat, told
from tests.experiments.small import SMALL_TELEPORT, small

NAMES = {*CURVE, *EVENT, *NORMS, MOVED}


def run(folder, tracker, *overrides):
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"needs {tracker}: pip install -e '.[tracking]'")
    return make_run(small(folder, *SMALL_TELEPORT, f"tracking={tracker}", *overrides))


def interrupted(folder, tracker, monkeypatch, *overrides):
    """The run is stopped in its second epoch and goes on."""

    def stop(self, event):
        if event == 1:
            raise KeyboardInterrupt
        return teleport(self, event)

    with monkeypatch.context() as patch:
        teleport = Training._teleport
        patch.setattr(
            Training, "_teleport", lambda self, event, callback: stop(self, self.teleports.due(self.records.step))
        )
        with pytest.raises(KeyboardInterrupt):
            run(folder, tracker, *overrides)
    return run(folder, tracker, *overrides)


def expected(folder):
    """(name, step) -> value, from the tables of the run."""
    curve, events = (pd.read_csv(folder / f"{name}.csv") for name in ("curve", "teleport_events"))
    values = {(name, row["step"]): row[column] for _, row in curve.iterrows() for name, column in CURVE.items()}
    values |= {(name, row["step"]): row[column] for _, row in events.iterrows() for name, column in EVENT.items()}
    batches = pd.read_csv(folder / "teleports.csv").groupby("step")
    for name, column in NORMS.items():
        values |= {(name, step): value for step, value in batches[column].mean().items()}
    layers = pd.read_csv(folder / "teleport_layers.csv").merge(events[["event", "step"]], on="event")
    moved = (layers["relative_change"] > 0).groupby(layers["step"]).sum()
    return values | {(MOVED, step): value for step, value in moved.items()}


def test_rows_are_told_once_with_the_events_before_the_evaluation_of_their_step():
    curve = [{"step": step, **dict.fromkeys(CURVE.values(), 1.0 + step)} for step in (0, 5)]
    events = [{"event": 0, "step": 0, **dict.fromkeys(EVENT.values(), 2.0)}]
    batches = [{"event": 0, "gradient_norm_before": 1.0, "gradient_norm_after": after} for after in (2.0, 4.0)]
    layers = [{"event": 0, "relative_change": change} for change in (0.0, 0.5)]
    tables = {"curve": curve, "teleport_events": events, "teleports": batches, "teleport_layers": layers}
    steps = [step for step, _ in told(tables, 0, 0)]
    assert steps == [0, 0, 5]
    ((_, numbers),) = told(tables, 2, 0)
    assert numbers["teleport/gradient_norm_after"] == 3.0
    assert numbers[MOVED] == 1
    assert list(told(tables, 2, 1)) == []
    curve[1]["train_loss"] = float("nan")
    assert "loss/train" not in dict(told(tables, 1, 1))[5]


def test_settings_are_flat_and_no_tracking_changes_the_name_of_a_run(tmp_path):
    assert flat({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}
    plain, tracked = (small(tmp_path, f"tracking={name}") for name in ("none", "mlflow"))
    assert identity(resolve(plain)) == identity(resolve(tracked))


@pytest.mark.slow
def test_tensorboard_reads_every_number_once_after_an_interruption(tmp_path, monkeypatch):
    folder = interrupted(tmp_path, "tensorboard", monkeypatch)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()
    assert {*read.Tags()["scalars"]} == NAMES
    found = {(name, event.step): event.value for name in NAMES for event in read.Scalars(name)}
    assert found == pytest.approx(expected(folder), rel=1e-6)
    assert sum(len(read.Scalars(name)) for name in NAMES) == len(found)
    (image,) = read.Images("curve")
    assert image.encoded_image_string.startswith(b"\x89PNG")


@pytest.mark.slow
def test_mlflow_reads_every_number_once_after_an_interruption(tmp_path, monkeypatch):
    folder = interrupted(tmp_path, "mlflow", monkeypatch)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("teleport")
    (read,) = client.search_runs([experiment.experiment_id])
    history = {name: client.get_metric_history(read.info.run_id, name) for name in NAMES}
    found = {(name, metric.step): metric.value for name, metrics in history.items() for metric in metrics}
    assert found == pytest.approx(expected(folder), rel=1e-12)
    assert sum(map(len, history.values())) == len(found)
    assert (read.info.status, read.info.run_name) == ("FINISHED", folder.name)
    assert read.data.params["optimizer.lr"] == "0.01"
    assert {"curve.png", "curve.csv"} <= {file.path for file in client.list_artifacts(read.info.run_id)}


@pytest.mark.slow
def test_an_offline_run_of_weights_and_biases_holds_every_number(tmp_path):
    folder = run(tmp_path, "wandb")
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = {}
    for content in records_of(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(content)
        if record.WhichOneof("record_type") == "history":
            items = {".".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            step = record.history.step.num
            found |= {(name, step): float(items[name]) for name in NAMES & items.keys()}
    assert found == pytest.approx(expected(folder), rel=1e-12)


def records_of(content):
    """The records of a file in the format of LevelDB's log, after a header of 7 bytes."""
    place, part = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # the rest of a block that holds no header
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def test_a_tracker_that_fails_costs_no_table(tmp_path, monkeypatch, caplog):
    class Broken:
        def __init__(self, *_):
            pass

        def log(self, step, numbers):
            raise OSError("the server is gone")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", (Broken, "json"))
    folder = make_run(small(tmp_path, "tracking=tensorboard"))
    assert len(pd.read_csv(folder / "curve.csv")) == 3
    assert (folder / "summary.json").exists()
    assert caplog.text.count("tracking ends (OSError: the server is gone)") <= 1


def test_a_package_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"tracking=mlflow needs mlflow .*pip install -e '\.\[tracking\]'"):
        make_run(small(tmp_path, "tracking=mlflow"))
