"""Committed results come from clean commits: of the figure, and of each of its runs."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]

BENCHMARKS = {
    "amd-epyc": set[str](),
    "intel-r-xeon-r-processor": {"basis", "epoch", "positions", "start", "teleport", "training"},
}
"""Machine -> subjects of the benchmark that were measured before this check; the list can only become shorter."""


def is_clean(commit: str | None) -> bool:
    """Whether something was made in git, without uncommitted changes."""
    return bool(commit) and "+" not in commit


def not_clean(results: Path) -> dict[str, str]:
    """Folder -> what of it was made with uncommitted changes or outside of git: the figure, or runs of it."""
    found = {}
    for path in sorted(results.rglob("provenance.json")):
        origin = json.loads(path.read_text())
        runs = [environment.get("commit") for environment in origin["environments"]]
        parts = [("figure", [origin["commit"]]), ("runs", runs)]
        unclean = [name for name, commits in parts if not all(map(is_clean, commits))]
        if unclean:
            found[str(path.parent.relative_to(results))] = " and ".join(unclean)
    return found


def test_results_come_from_clean_commits():
    """Make a figure that this names again, from a clean commit."""
    assert not_clean(ROOT / "results") == {}


def test_benchmarks_come_from_clean_commits():
    """Measure a subject that is named here again; take one that is clean now off the list."""
    found = {}
    for path in (ROOT / "results" / "benchmark").glob("*.json"):
        subjects = json.loads(path.read_text())
        commits = {name: subject["environment"]["commit"] for name, subject in subjects.items()}
        found[path.stem] = {name for name, commit in commits.items() if not is_clean(commit)}
    assert found == BENCHMARKS


def test_uncommitted_changes_are_found(tmp_path):
    cases = {"clean": ("a1", ["b2"]), "figure": ("a1+", ["b2"]), "runs": ("a1", ["b2", "b3+"]), "none": (None, [])}
    for name, (commit, runs) in cases.items():
        (tmp_path / name).mkdir()
        origin = {"commit": commit, "environments": [{"commit": each} for each in runs]}
        (tmp_path / name / "provenance.json").write_text(json.dumps(origin))
    assert not_clean(tmp_path) == {"figure": "figure", "runs": "runs", "none": "figure"}
