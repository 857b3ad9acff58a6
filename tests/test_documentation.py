"""The documentation of `make docs`: complete, built without a warning, and true to the files that it shows."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import teleport
from tests.browser import WIDTHS, Watched, faults, launched
from tests.experiments.report.html_pages import Page, pages_of, target_of

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"
TEXTS = {path.relative_to(SITE / "library").as_posix(): path.read_text() for path in (SITE / "library").rglob("*.md")}
METHODS = re.findall(r"^\| `(\w+)`", (ROOT / "README.md").read_text(), flags=re.MULTILINE)


def loaded(name: str):
    """A module of docs/site, which MkDocs and mkdocstrings load by their paths."""
    pytest.importorskip("mkdocstrings", reason="needs mkdocstrings: pip install -e '.[docs]'")
    spec = importlib.util.spec_from_file_location(f"site_{name}", SITE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hooks():
    return loaded("hooks")


def shown(hooks, text: str, page: str = "methods/page.md") -> str:
    return hooks.on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=page)))


def test_every_public_name_has_one_place():
    named = [name for text in TEXTS.values() for name in re.findall(r"^::: teleport\.(\w+)$", text, flags=re.MULTILINE)]
    assert sorted(named) == dir(teleport), "a line '::: teleport.NAME' in one page of docs/site/library"


def test_every_page_is_in_the_navigation():
    def pages(entry) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for one in (entry.values() if isinstance(entry, dict) else entry) for page in pages(one)]

    assert sorted(pages(yaml.safe_load((SITE / "library.yml").read_text())["nav"])) == sorted(TEXTS)


def test_every_method_of_the_readme_has_a_page_with_the_same_parts():
    assert len(METHODS) == 10
    for method in METHODS:
        own = [text for text in TEXTS.values() if f"<!-- method: {method} -->" in text]
        assert len(own) == 1, method
        parts = re.findall(r"^## (.*)$", own[0], flags=re.MULTILINE)
        assert [part for part in parts if part != "Use"] == [
            "Mathematics", "When not to use it", "Paper", "Verdicts", "Measured here", "Settings"
        ], method  # fmt: skip


def test_a_section_is_shown_without_its_heading_and_its_neighbours(hooks):
    text = shown(hooks, "<!-- include: docs/library.md#a-symmetry-of-your-own -->")
    source = (ROOT / "docs/library.md").read_text()
    assert text.strip() == source[source.index("If you know a group") :].strip()


def test_links_lead_to_pages_or_become_words(hooks):
    hooks._shown.update({"docs/library.md": "reference/contract.md"})
    text = hooks.relinked("[a](docs/library.md) [b](LICENSE) [c](https://x.org) `[d](e)`", "", "methods/page.md")
    assert text == "[a](../reference/contract.md) b (`LICENSE`) [c](https://x.org) `[d](e)`"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("<!-- include: docs/library.md#nowhere -->", "'docs/library.md' has no section 'nowhere'"),
        ("<!-- include: docs/none.md -->", "none.md' cannot be read"),
        ("<!-- method: Unknown -->", "no row 'Unknown'"),
        ("<!-- verdicts: mlp-early unheard-of -->", "no claim 'unheard-of'"),
        ("<!-- findings: nullspace/fig99 -->", "names the figure 'nullspace/fig99' nowhere"),
        ("<!-- gallery: nobody -->", "no folder 'conf/figure/nobody'"),
        ("<!-- programme: x.py -->", "programme"),
    ],
)
def test_what_is_not_there_ends_the_build_and_is_named(hooks, line, said):
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=re.escape(said)) as told:
        shown(hooks, line)
    assert "methods/page.md" in str(told.value)


def test_roles_of_docstrings_become_links():
    docstrings = loaded("docstrings")
    text = docstrings.as_markdown("As :class:`teleport.NullSpace`, :func:`save`, :data:`Action`::\n\n    x = 1")
    assert text == (
        "As [`NullSpace`][teleport.NullSpace], [`save`][teleport.save], `Action`:\n\n    x = 1"
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocstrings", reason="needs mkdocstrings: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-f", "docs/site/library.yml"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "-d", str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def pages(built) -> dict[str, Page]:
    return pages_of(built)


@pytest.mark.slow
def test_every_link_leads_to_a_page_and_a_place_on_it(pages):
    assert set(pages) == {path.replace(".md", ".html") for path in TEXTS}
    by_path = {page.path.resolve(): page for page in pages.values()}
    for name, page in pages.items():
        for link in page.links:
            target = target_of(page, link)
            if target is None:
                continue
            path, anchor = target
            assert path.exists(), (name, link)
            if anchor and path.resolve() in by_path:
                assert anchor in by_path[path.resolve()].ids, (name, link)


@pytest.mark.slow
def test_nothing_is_left_unread_or_loaded_from_elsewhere(pages):
    for name, page in pages.items():
        assert not re.search(r":(class|func|data):|:::|<!--|\]\[teleport", page.prose), name
        assert not [source for source in page.loaded if re.match(r"(https?:)?//", source)], name


@pytest.mark.slow
def test_public_names_are_anchors_with_their_docstrings(pages):
    everything = " ".join(page.text for page in pages.values())
    anchors = set().union(*(page.ids for page in pages.values()))
    for name in dir(teleport):
        assert f"teleport.{name}" in anchors, name
    for method in METHODS:
        first = " ".join(getattr(teleport, method).__doc__.partition("\n")[0].split()).partition("`")[0]
        assert first in everything, method


@pytest.mark.slow
def test_verdicts_are_those_of_the_ledger(pages):
    with (ROOT / "results/claims.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [line for line in pages["methods/null_space.html"].cells if len(line) == 3 and ": " in line[2]]
    assert len(cells) > 10
    for claim, figure, told in cells:
        own = [row["verdict"] for row in rows if row["claim"] == claim and row["figure"] == figure]
        counts = dict(re.findall(r"([a-z ]+): (\d+)", told.replace(", ", ",")))
        assert sum(map(int, counts.values())) == len(own)
        assert all(own.count(verdict) == int(count) for verdict, count in counts.items()), (claim, told)


@pytest.mark.slow
def test_the_gallery_has_every_figure_of_the_results(built, pages):
    """Its picture as it was committed, its claim, its command, and the verdicts as they are counted in the ledger."""
    page, folders = pages["gallery.html"], sorted(path.parent for path in (ROOT / "results").rglob("provenance.json"))
    assert len(folders) >= 40
    with (ROOT / "results/claims.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for folder in folders:
        name = json.loads((folder / "provenance.json").read_text())["figure"]
        picture = f"{name.rpartition('/')[2]}.png"
        own = built / "figures" / folder.relative_to(ROOT / "results") / picture
        assert own.read_bytes() == (folder / picture).read_bytes()
        assert own.relative_to(built).as_posix() in page.loaded, name
        card = page.text.partition(f"make reproduce FIG={name} Table")
        assert card[1], name
        written = yaml.safe_load((ROOT / f"conf/figure/{name}.yaml").read_text())
        before = card[0].rpartition("make reproduce FIG=")[2] or card[0]
        assert " ".join(str(written.get("claim", "")).split()) in before, name
        verdicts = Counter(row["verdict"] for row in rows if row["figure"] == name)
        for verdict in ("holds", "does not hold", "undecided"):
            if verdicts[verdict]:
                assert f"{verdict} {verdicts[verdict]}" in before, (name, verdict)


@pytest.mark.slow
def test_the_glossary_has_every_word_of_the_architecture(pages):
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    words = [re.sub(r"[*`]", "", line.split(" | ")[0].strip("| ")) for line in text.strip().splitlines()[2:]]
    assert len(words) > 20
    assert [line[0] for line in pages["reference/glossary.html"].cells[1:]] == words


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with launched() as browser:
        yield browser


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_pages_show_all_of_themselves(built, chromium, width):
    """No error, no network, no picture missing, nothing too wide."""
    watching = Watched(chromium, width)
    names = ["index", "tutorial", "gallery", "reference/glossary", "reference/contract"]
    paths = [built / f"{name}.html" for name in names] + sorted((built / "methods").glob("*.html"))
    assert len(paths) == 16
    assert {path.name: wrong for path in paths if (wrong := faults(watching, path))} == {}
    watching.page.close()


@pytest.mark.slow
def test_a_name_is_found_by_the_search_without_a_server(built, chromium):
    watching = Watched(chromium, WIDTHS["desktop"])
    page = watching.open(built / "index.html")
    page.locator(".md-search__input").press_sequentially("transport_state")
    result = page.locator(".md-search-result__link").first
    result.wait_for()
    result.click()
    page.wait_for_load_state("load")
    assert "transport_state" in page.locator("article").inner_text()
    assert watching.wrong == []
    page.close()
