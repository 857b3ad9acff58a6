from __future__ import annotations

from experiments.run.sweep import table


def test_a_table_has_a_line_for_each_run_and_says_why_one_failed():
    rows = [
        {
            "overrides": "seed=0",
            "train_loss": 0.5,
            "test_loss": 0.75,
            "metric": "accuracy",
            "test_metric": 0.9,
            "seconds": 1.23456,
            "folder": "runs/a",
        },
        {"overrides": "seed=none_such", "error": "that is no seed"},
    ]
    head, good, bad = table(rows).splitlines()
    assert head.split()[:3] == ["overrides", "train", "loss"]
    assert good.split() == ["seed=0", "0.5", "0.75", "accuracy", "0.9", "1.235", "runs/a"]
    assert bad.split()[:5] == ["seed=none_such", "-", "-", "-", "-"]
    assert bad.endswith("that is no seed")
    assert good.index("runs/a") == bad.index("that is no seed") == head.index("folder or error")
