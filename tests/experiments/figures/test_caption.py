"""Claims, reductions and verdicts in captions."""

from __future__ import annotations

import csv

import pytest
from omegaconf import OmegaConf

from experiments.errors import UserError
from experiments.figures.caption import paragraphs, verdict_on

COLUMNS = ["paper", "figure", "claim", "case", "at", "verdict"]


def ledger(folder, rows):
    with (folder / "claims.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *(["Some paper", *row] for row in rows)])
    return folder


FASTER = ("a/1", "Teleports are faster.")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(*FASTER, "", "", "holds")], "Teleports are faster: holds"),
        ([(*FASTER, "", "equal epochs", "undecided")], "Teleports are faster: at equal epochs undecided"),
        (
            [(*FASTER, f"data=mnist optimizer={each}", "", "holds") for each in ("sgd", "adam", "adagrad")],
            "Teleports are faster: holds in all 3 comparisons (by data set and optimizer)",
        ),
        (
            [(*FASTER, f"ascent rate={each}", "", "does not hold") for each in (1, 2)],
            "Teleports are faster: does not hold in any of 2 comparisons (by rate)",
        ),
        (
            [
                (*FASTER, "seed=0", "equal seconds", "undecided"),
                (*FASTER, "seed=1", "equal seconds", "holds"),
                (*FASTER, "", "tuned control", "does not hold"),
                (*FASTER, "", "equal epochs", "not measured"),
            ],
            "Teleports are faster: at equal seconds holds in 1 of 2 comparisons (by seed), undecided in 1; "
            "at equal seconds against the tuned control does not hold",
        ),
        (
            [
                *[(*FASTER, "", at, "holds") for at in ("equal epochs", "equal seconds")],
                *[("a/1", "The test losses meet.", f"model={each}", "", "undecided") for each in ("mlp", "cnn")],
            ],
            "(1) Teleports are faster: at equal epochs and at equal seconds holds. "
            "(2) The test losses meet: undecided in both comparisons (by network)",
        ),
        ([("a/1", "The same on CIFAR-10.", "", "", "holds")], "the claim holds"),
        (
            [("a/1", f"Statement {each}.", "", "", "undecided" if each else "holds") for each in range(7)],
            "7 statements, which results/claims.md lists: holds in 1 of 7 comparisons, undecided in 6",
        ),
        (
            [(*FASTER, "", "", "not measured"), ("a/10", "Other.", "", "", "holds")],
            "nothing that the ledger of claims compares in this figure is measured yet",
        ),
        ([("a/10", "Other.", "", "", "holds")], "no rule in the ledger of claims judges this figure"),
    ],
)
def test_verdicts_say_of_which_statement_they_are_and_are_counted_per_comparison(tmp_path, rows, said):
    assert verdict_on("a/1", ledger(tmp_path, rows)) == said


def test_without_a_ledger_there_is_no_verdict(tmp_path):
    assert verdict_on("a/1", tmp_path) == ""


@pytest.mark.parametrize("content", [b"", b"figure,at\na,b\n", b"\xff\xfe", b"[]"])
def test_a_damaged_ledger_is_refused_by_name(tmp_path, content):
    (tmp_path / "claims.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"claims\.csv' .*python scripts/claims\.py"):
        verdict_on("a/1", tmp_path)


def test_the_claim_is_followed_by_what_is_smaller_and_the_verdict():
    claim = "Teleports\n are faster (Wu et al. 2025, Figure 2)."
    figure = OmegaConf.create({"claim": claim, "reduced": "one seed"})
    told = [each for each in paragraphs(figure, "it holds") if each]
    assert told[0] == "Claim: Teleports are faster (Wu et al. 2025, Figure 2)."
    assert told[1:] == ["Smaller than in the paper: one seed", "Verdict: it holds"]
    own = OmegaConf.create({"claim": "Our own question: do they?"})
    assert [each for each in paragraphs(own) if each] == ["Our own question: do they?"]


@pytest.mark.parametrize(
    "claim", ["Our own question (of Figure 2): do they?", "Teleports are faster (Zhao et al. 2022)."]
)
def test_a_figure_that_no_paper_has_is_not_smaller_than_one(claim):
    figure = OmegaConf.create({"claim": claim, "reduced": "one seed"})
    assert "Size: one seed" in paragraphs(figure)
