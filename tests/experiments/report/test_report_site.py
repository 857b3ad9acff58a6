"""The report on the committed results: its pages are read with the standard library and compared with their sources."""

from __future__ import annotations

import csv
import json
import re
import statistics
from pathlib import Path

import pytest
import yaml

from tests.experiments.report.html_pages import Page, pages_of, target_of

ROOT = Path(__file__).parents[3]
CONF = ROOT / "conf/figure"
FIGURES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))


@pytest.fixture(scope="module")
def pages(committed) -> dict[str, Page]:
    return pages_of(committed)


def squeezed(text: str) -> str:
    return " ".join(str(text).split())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_has_its_claim_command_and_origin(pages):
    assert len(FIGURES) >= 34
    for name in FIGURES:
        page = pages[f"figures/{name}.html"]
        configured = yaml.safe_load((ROOT / "conf/figure" / f"{name}.yaml").read_text())
        assert squeezed(configured["claim"]) in page.text, name
        assert f"make reproduce FIG={name}" in page.text, name
        gallery = pages[f"figures/{name.partition('/')[0]}.html"]
        assert squeezed(configured["claim"]) in gallery.text, name
        origin = ROOT / "results" / name / "provenance.json"
        if not origin.exists():
            assert "not measured" in page.text, name
            continue
        recorded = json.loads(origin.read_text())
        for told in (
            recorded["command"],
            recorded["date"],
            recorded["commit"][:12],
            f"{len(recorded['runs'])} finished",
        ):
            assert told in page.text, name
        for environment in recorded["environments"]:
            assert environment["device_name"] in page.text, name


def test_every_table_can_be_downloaded(pages):
    for name in FIGURES:
        short = name.rpartition("/")[2]
        source = ROOT / "results" / name / f"{short}.csv"
        if source.exists():
            page = pages[f"figures/{name}.html"]
            files = [target_of(page, link)[0] for link in page.downloads]
            assert source.read_bytes() in [file.read_bytes() for file in files], name
            assert (ROOT / "results" / name / f"{short}.png").read_bytes() in [
                target_of(page, link)[0].read_bytes() for link in page.loaded if link.endswith(f"{short}.png")
            ], name


def test_links_lead_to_files_and_places_in_them(pages):
    by_path = {page.path.resolve(): page for page in pages.values()}
    for name, page in pages.items():
        for link in [*page.links, *page.downloads]:
            target = target_of(page, link)
            if target is None:
                continue
            path, anchor = target
            assert path.is_file(), (name, link)
            if anchor and path in by_path:
                assert anchor in by_path[path].ids, (name, link)


def test_nothing_is_loaded_from_elsewhere(pages):
    for name, page in pages.items():
        for link in page.loaded:
            target = target_of(page, link)
            assert target is not None, (name, link)
            assert target[0].is_file(), (name, link)


@pytest.mark.parametrize("mark", ["|---", "](", "**", "&#", "{ ", "<span", "<div"])
def test_no_mark_of_the_sources_is_left_in_the_text(pages, mark):
    assert [name for name, page in pages.items() if mark in page.prose] == []


def test_every_page_can_be_reached_from_the_first(pages):
    by_path = {page.path.resolve(): page for page in pages.values()}
    reached, left = set(), [pages["index.html"]]
    while left:
        page = left.pop()
        if page.path not in reached:
            reached.add(page.path)
            targets = filter(None, (target_of(page, link) for link in page.links))
            left += [by_path[path] for path, _ in targets if path in by_path]
    assert len(reached) == len(pages)


def test_claims_stand_beside_their_figure_and_in_the_ledger(pages):
    files = sorted((ROOT / "conf/claims").glob("*.yaml"))
    claims = [claim for file in files for claim in yaml.safe_load(file.read_text())["claims"]]
    assert len(claims) >= 25
    for claim in claims:
        assert squeezed(claim["claim"]) in pages["claims.html"].text, claim["id"]
        assert squeezed(claim["claim"]) in pages[f"figures/{claim['figure']}.html"].text, claim["id"]


@pytest.mark.parametrize("name", ["nullspace/fig8", "neural/fig7"])
def test_losses_in_numbers_are_those_of_the_table(pages, name):
    """Means over seeds at the last evaluation, computed here with the standard library."""
    cells = pages[f"figures/{name}.html"].cells
    start = next(number for number, row in enumerate(cells) if "training loss" in row)
    head = cells[start]
    lines = [dict(zip(head, row, strict=True)) for row in cells[start + 1 :] if len(row) == len(head)]
    rows = rows_of(ROOT / "results" / name / f"{name.rpartition('/')[2]}.csv")
    labels = head[: head.index("seeds")]
    assert {tuple(line[label] for label in labels) for line in lines} == {
        tuple(row[label] for label in labels) for row in rows
    }
    for line in lines:
        own = [row for row in rows if row["event"] == "evaluation" and all(row[key] == line[key] for key in labels)]
        last = {row["seed"]: row for row in own}
        assert int(line["seeds"]) == len(last)
        for shown, column in (("training loss", "train_loss"), ("test loss", "test_loss")):
            losses = [float(row[column]) for row in last.values()]
            mean, _, spread = line[shown].partition("\xa0±\xa0")
            assert float(mean) == pytest.approx(statistics.mean(losses), rel=5e-3), line
            assert float(spread) == pytest.approx(statistics.stdev(losses), rel=5e-2), line


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_worst_error_of_outputs_is_that_of_the_table(pages, precision):
    rows = rows_of(ROOT / "results/neural/outputs/outputs.csv")
    errors = [float(row["difference"]) for row in rows if row["precision"] == precision]
    found = [cells for cells in pages["checks.html"].cells if "results/neural/outputs/outputs.csv" in cells]
    shown = {(int(cells[1]), float(cells[2].partition(" ")[0])) for cells in found}
    assert (len(errors), float(f"{max(errors):.2g}")) in shown


def test_no_check_lacks_its_table(pages):
    lines = [cells for cells in pages["checks.html"].cells if len(cells) == 6][1:]
    assert len(lines) >= 15
    assert [cells for cells in lines if "not measured" in cells[2]] == []
    for cells in lines:
        assert (ROOT / cells[3]).is_file()
        assert (ROOT / cells[5]).exists()


def test_findings_stand_with_the_figure_that_they_name(pages):
    """A finding's first words, on the page of each figure whose folder or command it has."""
    items = (ROOT / "results/README.md").read_text().split("\n- ")[1:]
    found = 0
    for item in items:
        begins = squeezed(re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", item))[:40]
        assert begins in pages["findings.html"].text
        for name in set(re.findall(r"(?:results/|figure=)([a-z]+/[a-z0-9_]+)\b", item)) & set(FIGURES):
            assert begins in pages[f"figures/{name}.html"].text, name
            found += 1
    assert found > 10
