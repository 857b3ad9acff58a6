"""What the subjects of the benchmark share."""

from __future__ import annotations

import importlib

import pandas as pd
import pytest
import torch

from experiments.benchmarks import SUBJECTS, subject
from experiments.benchmarks.aims import Aim
from experiments.benchmarks.common import MACHINE, TIMES, base_of, machine, ratios, slopes, slug, take_turns

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_has_what_is_asked_of_it(name):
    module = subject(name)
    assert module is importlib.import_module(f"experiments.benchmarks.{name}")
    assert module.__doc__
    assert {"method", *TIMES, *MACHINE} <= set(module.COLUMNS)
    assert all(callable(getattr(module, function)) for function in ("measure", "line", "summary"))
    assert all(isinstance(aim, Aim) for aim in module.AIMS)


def test_methods_take_turns_and_preparation_is_not_timed(monkeypatch):
    calls, now = [], [0.0]  # a clock that work and preparation move on
    monkeypatch.setattr("experiments.run.clock.time.perf_counter", lambda: now[0])

    def method(name, seconds):
        def prepare():
            calls.append(f"prepare {name}")
            now[0] += 100
            return work

        def work():
            calls.append(name)
            now[0] += seconds
            return len(calls)

        return prepare

    timed = take_turns({"a": method("a", 1.0), "b": method("b", 2.0)}, 2, CPU)
    assert calls == ["prepare a", "a", "prepare b", "b"] * 2
    assert timed["a"].seconds == [1.0, 1.0]
    assert timed["b"].seconds == [2.0, 2.0]
    assert (timed["a"].last, timed["b"].last) == (6, 8)


def test_no_further_round_begins_when_enough_seconds_have_passed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("experiments.run.clock.time.perf_counter", lambda: now[0])

    def work():
        now[0] += 2.0

    methods = {"a": lambda: work, "b": lambda: work}
    assert [len(take_turns(methods, 3, CPU, enough)["b"].seconds) for enough in (1.0, 4.0, 4.1)] == [1, 1, 2]
    assert len(take_turns(methods, 3, CPU)["b"].seconds) == 3


def test_the_columns_of_a_time_are_its_median_and_its_range():
    timed = take_turns({"a": lambda: lambda: None}, 3, CPU)["a"]
    timed.seconds = [3.0, 1.0, 2.5]
    assert timed.columns() == {"seconds": 2.5, "fastest": 1.0, "slowest": 3.0, "repeats": 3}


def test_ratios_are_within_a_case():
    rows = [("a", 1, 2.0), ("b", 1, 6.0), ("a", 2, 5.0), ("b", 2, 4.0)]
    found = ratios(pd.DataFrame(rows, columns=["method", "size", "seconds"]), ["size"], "a")
    assert found["size"].tolist() == [1, 2]
    assert found["a"].tolist() == [1.0, 1.0]
    assert found["b"].tolist() == [3.0, 0.8]


def test_slopes_are_exponents():
    cases = [(64, 8), (128, 8), (256, 8), (128, 2), (128, 4)]
    rows = [("a", width, steps, 3 * width**2 * steps**0.5) for width, steps in cases]
    table = pd.DataFrame(rows, columns=["method", "width", "steps", "seconds"])
    assert base_of(table, ["width", "steps"]).to_dict() == {"width": 128, "steps": 8}
    found = slopes(table, ["width", "steps"]).set_index("axis")
    assert found.slope.to_dict() == pytest.approx({"width": 2.0, "steps": 0.5})
    assert found["values"].tolist() == [3, 3]


def test_the_machine_is_told():
    known = machine(CPU)
    assert known["threads"] == torch.get_num_threads()
    assert known["torch"] == torch.__version__
    assert known["hardware"]


def test_a_machines_name_fits_a_file():
    assert slug("Intel(R) Xeon(R) CPU @ 2.60GHz") == "intel-r-xeon-r-cpu-2-60ghz"
    assert slug("") == "unknown"
