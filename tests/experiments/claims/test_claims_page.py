"""The script over real tables: what is judged, what is missing, what is refused; and the age of rules."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.claims import age
from experiments.claims.judging import judge_all
from experiments.claims.ledger import parse
from experiments.claims.page import COLUMNS, page, rows
from experiments.errors import UserError
from tests.experiments.claims.test_ledger import ENTRY, ledger

ROOT = Path(__file__).parents[3]
WITHOUT_TORCH = """
import runpy, sys
code = runpy.run_path("scripts/claims.py")["main"](sys.argv[1:])
print("torch:", "torch" in sys.modules)
sys.exit(code)
"""
GAIN = ENTRY | {"figure": "nullspace/gain", "where": {"data": "mnist"}, "epoch": "last"}


def git(folder, *arguments):
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    named = ["-c", "user.name=A", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *named, *arguments], cwd=folder, env=os.environ | own, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


@pytest.fixture
def place(tmp_path):
    """A checkout of its own with one table, no ledger, and its results."""
    shutil.copytree(ROOT / "conf" / "figure", tmp_path / "conf" / "figure")
    shutil.copytree(ROOT / "results" / "nullspace" / "gain", tmp_path / "results" / "nullspace" / "gain")
    (tmp_path / "conf" / "claims").mkdir()
    return tmp_path


def judged(place, *entries):
    path = place / "conf" / "claims" / "own.yaml"
    path.write_text(ledger(*entries))
    found, errors = judge_all(place, place / "results", [path])
    return found, errors


def test_the_script_writes_the_same_bytes_again_without_torch(tmp_path):
    results = tmp_path / "results"
    for name in ("fig1", "fig3", "fig8"):
        shutil.copytree(ROOT / "results" / "nullspace" / name, results / "nullspace" / name)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(results)]
    written = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "torch: False" in done.stdout
        written.append([(results / name).read_bytes() for name in ("claims.csv", "claims.md")])
    assert written[0] == written[1]
    with (results / "claims.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    entries = [
        entry
        for path in (ROOT / "conf" / "claims").glob("*.yaml")
        for entry in yaml.safe_load(path.read_text())["claims"]
    ]
    assert {row["id"] for row in table} == {entry["id"] for entry in entries}
    assert {row["verdict"] for row in table if row["figure"].startswith("neural/")} == {"not measured"}
    assert all(row["command"] == f"python run.py figure={row['figure']}" for row in table)
    assert all(str(tmp_path) not in row["reason"] for row in table)


def test_the_verdict_on_a_committed_table_is_that_of_its_numbers(place):
    """Losses of five seeds, read with the csv module."""
    with (place / "results" / "nullspace" / "gain" / "gain.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["event"] == "evaluation" and row["data"] == "mnist"]
    last = {(row["teleport"], row["seed"]): float(row["train_loss"]) for row in table}  # the last of each run stays
    ratios = [last["nullspace", seed] / last["none", seed] for seed in "01234"]
    product = 1.0
    for ratio in ratios:
        product *= ratio
    (one,), errors = judged(place, GAIN | {"at": ["equal epochs"]})
    assert (one.verdict.n, errors) == (5, [])
    assert one.verdict.effect == pytest.approx(product ** (1 / 5) - 1)
    assert one.verdict.low < one.verdict.effect < one.verdict.high


def test_what_is_missing_says_which_figure_to_make(place):
    found, errors = judged(
        place,
        GAIN | {"id": "there", "at": ["equal epochs"]},
        GAIN | {"id": "no-table", "at": ["equal epochs"], "figure": "nullspace/fig4"},
        GAIN | {"id": "no-rows", "at": ["equal epochs"], "where": {"data": "ptb"}},
        GAIN
        | {"id": "one-of-two", "at": ["equal epochs"], "pairs": ["data", "seed"], "where": {"data": ["mnist", "ptb"]}},
    )
    assert errors == []
    assert [each.verdict.verdict == "not measured" for each in found] == [False, True, True, True]
    assert "the figure has no table yet" in found[1].verdict.reason
    assert "no rows with data=ptb" in found[2].verdict.reason
    assert found[3].verdict.reason == "the table has no pair with data=ptb"
    text = page(found, {})
    assert "python run.py figure=nullspace/fig4" in text
    assert "not measured: the figure has no table yet" in text


@pytest.mark.parametrize("damage", ["changed", "cut", "no text", "no number", "no provenance", "gone"])
def test_a_damaged_table_is_refused_by_name_and_the_others_are_judged(place, damage):
    figure = place / "results" / "nullspace" / "gain"
    shutil.copytree(figure, figure.parent / "lead")
    (figure.parent / "lead" / "gain.csv").rename(figure.parent / "lead" / "lead.csv")
    path, origin = figure / "gain.csv", figure / "provenance.json"
    text = path.read_text()
    if damage == "changed":
        kept = json.loads(origin.read_text()) | {"table_sha256": "0" * 64}
        kept.pop("sha256", None)
        origin.write_text(json.dumps(kept))
    elif damage == "cut":
        path.write_text(text[: text.index(",")])
    elif damage == "no text":
        path.write_bytes(b"\xff\xfe" + text.encode())
    elif damage == "no number":
        path.write_text(text.replace(",2.3139273166656493,", ",2.31392731x6656493,", 1))
        assert path.read_text() != text
    elif damage == "no provenance":
        origin.unlink()
    else:
        path.unlink()
    own = GAIN | {"at": ["equal epochs"]}
    found, errors = judged(place, own, own | {"id": "other", "figure": "nullspace/lead"})
    assert [each.verdict.verdict == "not measured" for each in found] == [True, False]
    assert len(errors) == 1
    assert "gain" in errors[0]
    assert "\n" not in errors[0]
    assert str(place) not in found[0].verdict.reason
    assert found[0].verdict.reason in page(found, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"quantity": "train_los"},
            "unknown quantity of the claim 'faster' in the table of nullspace/gain 'train_los'",
        ),
        (
            {"pairs": ["sed"]},
            "unknown column of the claim 'faster' in the table of nullspace/gain 'sed' (did you mean 'seed'?)",
        ),
        (
            {"first": {"teleprot": "none"}},
            "unknown column of the claim 'faster' in the table of nullspace/gain 'teleprot'",
        ),
    ],
)
def test_a_column_that_no_table_has_is_a_mistake(place, change, message):
    with pytest.raises(UserError) as raised:
        judged(place, GAIN | {"at": ["equal epochs"]} | change)
    assert message in str(raised.value)


def test_a_label_that_is_younger_than_the_table_is_not_measured(place):
    """``rates`` labels the runs of Table 1, but not those of the table that is here."""
    folder = place / "results" / "nullspace"
    (folder / "gain").rename(folder / "table1")
    (folder / "table1" / "gain.csv").rename(folder / "table1" / "table1.csv")
    own = {"figure": "nullspace/table1", "at": ["equal epochs"], "where": {"rates": "tuned"}}
    found, errors = judged(place, GAIN | own)
    assert errors == []
    assert found[0].verdict.reason == "the table has no column 'rates'"


def test_every_row_has_every_column(place):
    found, _ = judged(place, GAIN | {"at": ["equal epochs", "equal seconds"]})
    assert all(set(row) == set(COLUMNS) for row in rows(found))


def test_a_rule_is_as_old_as_the_commit_since_which_it_decides_the_same(place):
    path = Path("conf") / "claims" / "own.yaml"
    git(place, "init", "-q")
    commits = []
    for entry in (
        ENTRY | {"smallest": 0.1},
        ENTRY,
        ENTRY | {"claim": "In other words."},
    ):
        (place / path).write_text(ledger(entry))
        git(place, "add", "-A")
        git(place, "commit", "-qm", "a step")
        commits.append(git(place, "rev-parse", "HEAD"))
    (line,) = parse((place / path).read_text(), "own")
    since = age.rule_commits(place, path)[age.content(line)]
    assert since == commits[1]
    assert age.older(place, since, {"commit": commits[2], "environments": [{"commit": commits[1]}]}) == "yes"
    assert age.older(place, since, {"commit": commits[2] + "+", "environments": []}) == "yes"
    assert age.older(place, since, {"commit": commits[2], "environments": [{"commit": commits[0]}]}) == "no"
    assert age.older(place, since, {"commit": commits[0], "environments": []}) == "no"
    assert age.older(place, since, {"commit": "f" * 40, "environments": []}) == "unknown"
    assert age.older(place, since, {"commit": None, "environments": []}) == "unknown"
    (changed,) = parse(ledger(ENTRY | {"smallest": 0.2}), "own")
    assert age.content(changed) not in age.rule_commits(place, path)
    assert age.older(place, None, {"commit": commits[2], "environments": []}) == "no"


def test_a_verdict_on_an_older_table_is_marked(place):
    git(place, "init", "-q")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "the table")
    origin = place / "results" / "nullspace" / "gain" / "provenance.json"
    kept = json.loads(origin.read_text())
    kept |= {"commit": git(place, "rev-parse", "HEAD"), "environments": [], "sha256": None}
    origin.write_text(json.dumps(kept))
    own = GAIN | {"at": ["equal epochs"]}
    found, _ = judged(place, own)
    assert "(older table)" in page(found, {}).partition("## A paper")[2]
    git(place, "add", "-A")
    git(place, "commit", "-qm", "the rule")
    origin.write_text(json.dumps(kept | {"commit": git(place, "rev-parse", "HEAD")}))
    age._ancestor.cache_clear()
    found, _ = judged(place, own)
    assert found[0].rule_first == "yes"
    assert "| yes |" in page(found, {})
    assert "(older table)" not in page(found, {}).partition("## A paper")[2]


def test_without_git_the_age_is_unknown(place):
    found, _ = judged(place, GAIN | {"at": ["equal epochs"]})
    assert found[0].rule_first == "unknown"
