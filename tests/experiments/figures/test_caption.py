"""Claims, reductions and verdicts in captions."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from experiments.errors import UserError
from experiments.figures.caption import paragraphs, verdict_on


def ledger(folder, *rows):
    (folder / "claims.csv").write_text("\n".join(["paper,figure,at,verdict", *rows]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a/1,,holds"], "it holds"),
        (["a/1,equal epochs,undecided"], "at equal epochs it is undecided"),
        (["a/1,,holds"] * 3, "it holds in all of 3 comparisons"),
        (["a/1,,does not hold"] * 2, "it does not hold in any of 2 comparisons"),
        (
            ["a/1,equal seconds,undecided", "a/1,equal seconds,holds", "a/1,tuned control,does not hold"],
            "at equal seconds it holds in 1 of 2 comparisons, is undecided in 1; "
            "at equal seconds against the tuned control it does not hold",
        ),
        (["a/1,,not measured", "a/10,,holds"], ""),
        ([], ""),
    ],
)
def test_verdicts_are_counted_per_comparison(tmp_path, rows, said):
    ledger(tmp_path, *(f"Some paper,{row}" for row in rows))
    if not rows:
        (tmp_path / "claims.csv").unlink()
    assert verdict_on("a/1", tmp_path) == said


@pytest.mark.parametrize("content", [b"", b"figure,at\na,b\n", b"\xff\xfe", b"[]"])
def test_a_damaged_ledger_is_refused_by_name(tmp_path, content):
    (tmp_path / "claims.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"claims\.csv' .*python scripts/claims\.py"):
        verdict_on("a/1", tmp_path)


def test_the_claim_is_followed_by_what_is_smaller_and_the_verdict():
    figure = OmegaConf.create({"claim": "Teleports\n are faster.", "reduced": "one seed"})
    told = [each for each in paragraphs(figure, "it holds") if each]
    assert told == ["Claim: Teleports are faster.", "Smaller than in the paper: one seed", "Verdict: it holds"]
    own = OmegaConf.create({"claim": "Our own question: do they?"})
    assert [each for each in paragraphs(own) if each] == ["Our own question: do they?"]
