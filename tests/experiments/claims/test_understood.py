"""What was tried to understand the claims that do not hold."""

from __future__ import annotations

import csv
import shlex

import pytest
import yaml

from experiments.claims import understood
from experiments.claims.verdicts import FAILS
from experiments.errors import UserError
from tests.experiments.figures.conftest import ROOT

RESULTS = ROOT / "results"


def test_every_claim_that_does_not_hold_has_an_entry():
    with (RESULTS / "claims.csv").open(newline="") as file:
        failed = {row["id"] for row in csv.DictReader(file) if row["verdict"] == FAILS}
    assert failed
    assert failed <= set(understood.read(RESULTS))


def test_entries_are_about_claims_and_their_commands_name_what_is_there():
    ledgers = (ROOT / "conf" / "claims").glob("*.yaml")
    known = {entry["id"] for path in ledgers for entry in yaml.safe_load(path.read_text())["claims"]}
    entries = understood.read(RESULTS)
    assert set(entries) <= known
    for command in {command for entry in entries.values() for command in entry.see}:
        program, script, *words = shlex.split(command)
        assert (program, (ROOT / script).is_file()) == ("python", True), command
        for figure in (word.removeprefix("figure=") for word in words if word.startswith("figure=")):
            assert (RESULTS / figure).is_dir(), f"{command}: {figure} has no result"


def test_the_page_shows_them():
    text = (RESULTS / "claims.md").read_text()
    for name, entry in understood.read(RESULTS).items():
        section = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert ("does not hold" in section) == (str(entry) in section)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("- a", "must map claims to what was tried"),
        ("a: {tried: much}", "'a' in .* must have the keys tried and see"),
        ("a: {tried: much, see: [b], more: c}", "'a' in .* must have the keys tried and see"),
        ("a: {tried: much, see: b}", "'see' of 'a' in .* must be a list of commands"),
    ],
)
def test_another_form_is_refused(tmp_path, text, said):
    (tmp_path / understood.NAME).write_text(text)
    with pytest.raises(UserError, match=said):
        understood.read(tmp_path)


def test_without_the_file_nothing_is_known(tmp_path):
    assert understood.read(tmp_path) == {}
