"""A report on the committed results, and one on a small part of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.report.site import make

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def committed(tmp_path_factory) -> Path:
    """The report on everything in results/."""
    return make(ROOT / "results", tmp_path_factory.mktemp("committed") / "report").parent


def of_earlier_code(path: Path) -> None:
    """Turn a ``provenance.json`` into one without checksums, of a figure that was made on another day than today."""
    content = json.loads(path.read_text())
    kept = {key: value for key, value in content.items() if not key.endswith("sha256")}
    path.write_text(json.dumps(kept | {"date": "2026-11-21T23:39:59Z"}))


@pytest.fixture
def small(tmp_path) -> tuple[Path, Path, Path]:
    """Copies of conf/ with three figures and of results/ with two of them, without a ledger, and a page by hand."""
    conf, results, written = (tmp_path / name for name in ("conf", "results", "written"))
    for name in ("nullspace/fig11", "nullspace/fig8", "neural/outputs"):
        (conf / "figure" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "conf" / "figure" / f"{name}.yaml", conf / "figure" / f"{name}.yaml")
    shutil.copytree(ROOT / "results" / "nullspace" / "fig11", results / "nullspace" / "fig11")
    shutil.copytree(ROOT / "results" / "neural" / "outputs", results / "neural" / "outputs")
    for origin in results.rglob("provenance.json"):
        of_earlier_code(origin)
    for document in ("README.md", "benchmark/README.md", "robustness/README.md", "mutation/README.md"):
        (results / document).parent.mkdir(exist_ok=True)
        (results / document).write_text(f"# Of {document}\n\nNothing.\n")
    written.mkdir()
    (written / "easy_and_hard.md").write_text("# What was easy\n\nThis was.\n")
    return conf, results, written
