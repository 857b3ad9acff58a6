"""Every entry of the ledgers loads, and a mistake in one is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from experiments.claims.judging import labels
from experiments.claims.ledger import parse, read
from experiments.errors import UserError

ROOT = Path(__file__).parents[3]
LEDGERS = sorted((ROOT / "conf" / "claims").glob("*.yaml"))
FIGURES = ROOT / "conf" / "figure"
ENTRY = {
    "id": "faster",
    "place": "Figure 1",
    "claim": "It is faster.",
    "figure": "nullspace/fig8",
    "quantity": "train_loss",
    "first": {"teleport": "nullspace"},
    "second": {"teleport": "none"},
    "pairs": ["seed"],
    "direction": "lower",
    "smallest": 0.05,
    "unit": "relative",
}


def ledger(*entries):
    return yaml.safe_dump({"paper": "A paper", "claims": list(entries)}, sort_keys=False)


@pytest.mark.parametrize("path", LEDGERS, ids=lambda path: path.stem)
def test_every_entry_loads_and_names_a_figure_and_labels_of_it(path):
    lines = read(path, FIGURES)
    assert len({line.id for line in lines}) >= (5 if path.stem == "suite" else 25)
    for line in lines:
        if line.at:  # what a line about curves selects and pairs by is a label of its figure's runs
            assert set(line.columns) - {""} <= labels(FIGURES, line.figure), line.name


def test_every_figure_of_curves_of_wu_et_al_is_judged():
    judged = {line.figure for line in read(ROOT / "conf" / "claims" / "nullspace.yaml", FIGURES)}
    assert {f"nullspace/fig{number}" for number in (1, 2, 3, 4, 5, "6a", "6b", 7, 8, 9, 10)} < judged
    assert "nullspace/table1" in judged


def test_each_and_at_make_one_line_for_each_combination():
    entry = ENTRY | {
        "each": {"optimizer": ["sgd", "adam"], "first.teleport.range": [0.5, 0.9]},
        "where": {"data": "mnist"},
        "epoch": 2,
        "at": ["equal epochs", "tuned control"],
        "tuned": {"figure": "nullspace/table1"},
    }
    lines = parse(ledger(entry), "own")
    assert len(lines) == len({line.name for line in lines}) == 8
    one = next(line for line in lines if line.name == "faster optimizer=adam teleport.range=0.9 tuned control")
    assert one.figure == "nullspace/table1"
    assert one.first == {"data": "mnist", "optimizer": "adam", "teleport": "nullspace", "teleport.range": 0.9}
    assert one.second == {"data": "mnist", "optimizer": "adam", "teleport": "none"}
    assert {line.figure for line in lines if line.at == "equal epochs"} == {"nullspace/fig8"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantty": "x"}, "unknown key of the claim 'faster' 'quantty' (did you mean 'quantity'?)"),
        ({"direction": "less"}, "unknown direction of the claim 'faster' 'less'"),
        ({"unit": "percent"}, "unknown unit"),
        ({"rule": "most"}, "unknown rule"),
        ({"reduce": "median"}, "unknown reduce"),
        ({"at": ["equal steps"], "epoch": 1}, "unknown comparison of the claim 'faster' 'equal steps'"),
        ({"at": "equal epochs", "epoch": 1}, "'at' of the claim 'faster' must be a list"),
        ({"at": ["equal epochs"]}, "needs 'at' together with 'epoch' or 'step'"),
        ({"epoch": 1}, "needs 'at' together with 'epoch' or 'step'"),
        ({"epoch": 1, "step": 10, "at": ["equal epochs"]}, "has both 'epoch' and 'step'"),
        ({"value": 1}, "needs either 'second', the other side of the comparison, or 'value'"),
        ({"smallest": -1}, "'smallest' of the claim 'faster' must be a number of at least 0"),
        ({"smallest": "5 %"}, "'smallest' of the claim 'faster' must be a number of at least 0"),
        ({"pairs": "seed"}, "'pairs' of the claim 'faster' must be a list"),
        ({"first": "nullspace"}, "'first' of the claim 'faster' must map columns to values"),
        ({"where": {"step": {"over": 1}}}, "unknown operator on 'step' of the claim 'faster' 'over'"),
        ({"id": None}, "entry 1 of the ledger 'own' has no 'id'"),
    ],
)
def test_a_mistake_in_an_entry_is_one_sentence(change, message):
    with pytest.raises(UserError) as raised:
        parse(ledger(ENTRY | change), "own")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["place", "claim", "figure", "quantity", "direction", "smallest", "unit", "second"])
def test_a_missing_key_is_named(key):
    with pytest.raises(UserError, match=f"the claim 'faster' needs .*'{key}'"):
        parse(ledger({name: value for name, value in ENTRY.items() if name != key}), "own")


def test_an_id_is_given_once():
    with pytest.raises(UserError, match="two claims 'faster'"):
        parse(ledger(ENTRY, ENTRY), "own")


@pytest.mark.parametrize(
    "text", ["", "claims: []", "paper: it", "paper: it\nclaims: 3", "- 1", "a: [", "paper: x\nclaims: [3]"]
)
def test_a_text_that_is_no_ledger_is_refused(text):
    with pytest.raises(UserError, match="own"):
        parse(text, "own")


def test_an_unknown_figure_is_refused_by_name(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(ledger(ENTRY | {"figure": "nullspace/fig88"}))
    with pytest.raises(UserError, match=r"unknown figure of the claim 'faster' 'nullspace/fig88' \(did you mean"):
        read(path, FIGURES)
