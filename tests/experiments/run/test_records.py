from __future__ import annotations

import pytest

from experiments import files
from experiments.run.evaluation import Evaluation
from experiments.run.records import COLUMNS, Records, write_json
from experiments.run.runs import load_table
from teleport import BatchReport, LayerReport, NullSpaceLayerReport, TeleportReport

BEFORE, AFTER = Evaluation(2.0, 0.1, 2.1, 0.2), Evaluation(2.5, 0.1, 2.6, 0.2)
BATCHES = [
    BatchReport(2.0, 2.001, 1.0, 5.0, 3, "cap reached"),
    BatchReport(2.1, 2.1, 1.0, 1.0, 2, "rolled back", accepted=False, reason="the loss moved"),
]
LAYERS = [
    LayerReport("first", "linear", 65, reason="it is the first"),
    NullSpaceLayerReport("head", "linear", 25, ranks=[10, 8], surviving=[0.5, 0.25], relative_change=0.125),
]
REPORT = TeleportReport("nullspace", 2.0, 2.2, 1.0, 5.0, BATCHES, LAYERS, 0.5)


@pytest.fixture
def records():
    records = Records(step=20, training_seconds=3.0, teleport_seconds=1.0)
    records.add_evaluation(2.0, 0.1, BEFORE)
    records.add_teleport(0, 2.0, 0.5, BEFORE, AFTER, REPORT)
    return records


def test_tables_say_what_the_report_says(records, tmp_path):
    records.write(tmp_path)
    batches, layers, events = (load_table(tmp_path, name) for name in list(COLUMNS)[1:4])
    assert batches.steps.tolist() == [3, 2]
    assert batches.step.tolist() == [20, 20]
    assert batches.accepted.tolist() == [True, False]
    assert batches.reason.fillna("").tolist() == ["", "the loss moved"]
    assert layers[["rank_min", "rank_max", "null_min", "null_max"]].iloc[1].tolist() == [8, 10, 15, 17]
    assert layers.rank_min.isna().tolist() == [True, False]
    assert layers.surviving.iloc[1] == 0.375
    event = events.iloc[0]
    assert (event.started, event.seconds, event.steps, event.no_op) == (4.0, 0.5, 3, False)
    assert event.drift_batches == pytest.approx(0.1)
    assert (event.train_loss_before, event.test_loss_after) == (2.0, 2.6)
    assert load_table(tmp_path, "curve").seconds.tolist() == [4.0]


def test_the_latest_evaluation_is_that_of_the_present_step(records):
    assert records.latest() == BEFORE
    records.step += 1
    assert records.latest() is None
    assert Records().latest() is None


def test_a_run_is_a_no_op_where_all_its_teleports_were(records):
    assert records.summary()["no_op"] is False
    assert records.summary()["relative_change"] == 0.125
    records.tables["teleport_events"][0]["no_op"] = True
    assert records.summary()["no_op"] is True
    records.tables["teleport_events"].clear()
    assert records.summary()["no_op"] is False  # without teleports there is nothing that was one


def test_json_has_null_where_there_is_no_number(tmp_path):
    write_json(tmp_path / "s.json", {"a": float("nan"), "b": float("inf"), "c": 1.5, "d": "x"})
    assert files.read_json(tmp_path / "s.json", "") == {"a": None, "b": None, "c": 1.5, "d": "x"}


def test_positions_of_a_model_of_few_parameters_are_kept(tmp_path):
    records = Records(step=20)
    before, after = (
        Evaluation(*losses, (0.1 + 0.2, x)) for losses, x in (((2.0, 0, 2.0, 0), 1.0), ((2.5, 0, 2, 0), 4.0))
    )
    records.add_evaluation(2.0, 0.1, before)
    assert records.latest() == before
    records.add_teleport(0, 2.0, 0.5, before, after, REPORT)
    records.write(tmp_path)
    rows = load_table(tmp_path, "positions")
    assert rows.step.tolist() == [20] * 6
    assert rows.moment.tolist() == ["evaluation"] * 2 + ["before teleport"] * 2 + ["after teleport"] * 2
    assert rows.coordinate.tolist() == [0, 1] * 3
    assert rows.value.tolist() == [0.1 + 0.2, 1.0, 0.1 + 0.2, 1.0, 0.1 + 0.2, 4.0]


def test_other_models_have_no_table_of_positions(records, tmp_path):
    records.write(tmp_path)
    assert not (tmp_path / "positions.csv").exists()


def test_records_of_older_code_lack_a_table_and_go_on(tmp_path):
    older = {name: [] for name in COLUMNS if name != "positions"}
    records = Records(step=20, tables=older)
    records.add_evaluation(2.0, 0.1, Evaluation(2.0, 0.1, 2.1, 0.2, (3.0,)))
    records.write(tmp_path)
    assert load_table(tmp_path, "positions").value.tolist() == [3.0]
