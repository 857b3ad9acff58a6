"""The fuzzer of reports at small size, and that it finds what is planted."""

from __future__ import annotations

import pytest
import torch

import teleport
from scripts.fuzz._reports import scenarios
from scripts.fuzz.reports import main


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_no_findings_in_a_few_cases(capsys):
    assert main(["--cases", "6", "--seed", "20004"]) == 0
    counts = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("LevelSet")]
    assert int(counts[0][1]) > 0, "no call of LevelSet moved anything"


@pytest.mark.parametrize("planted", ["loss", "move", "flag"])
def test_what_is_planted_is_found(monkeypatch, capsys, planted):
    call = scenarios.call

    def wrong(drawn, model, *args, **options) -> teleport.TeleportReport:
        report = call(drawn, model, *args, **options)
        if planted == "loss":
            report.loss_after += 1
        elif planted == "flag":
            next(model.parameters()).requires_grad_(False)
        else:
            with torch.no_grad():
                next(model.parameters()).add_(0.25)
        return report

    monkeypatch.setattr(scenarios, "call", wrong)
    assert main(["--cases", "3", "--seed", "20000", "--only", "LevelSet"]) == 1
    expected = {
        "loss": "number: mean loss after",
        "move": "moved, and the report does not say so",
        "flag": "left behind",
    }
    assert expected[planted] in capsys.readouterr().out
