"""The site: all pages in one folder, and MkDocs on it."""

from __future__ import annotations

import logging
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import files
from experiments.errors import UserError
from experiments.figures import provenance
from experiments.report import checks, documents, figure_page, ledger, overview, settings, table1
from experiments.report.figures import PAPERS, Figure, papers, read

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "docs" / "site"
WRITTEN = SOURCES / "pages"
"""Pages that are written by hand."""
MARK = "assets/report.css"
"""A file that every report has: a folder without it is not replaced."""


def make(results: Path, output: Path, conf: Path = ROOT / "conf", written: Path = WRITTEN) -> Path:
    """Write the report on ``results`` to ``output``, in place of an earlier one.

    Returns:
        its first page.

    Raises:
        UserError: a figure, a table, a picture or a document is missing or damaged, ``output`` holds something else, or
            MkDocs is missing or finds a fault. ``output`` then stays as it was.
    """
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / MARK).exists())):
        raise UserError(
            f"'{output}' holds something else than a report; name an empty folder, or one that is not there"
        )
    with files.writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=output.parent) as folder:
            pages, site = Path(folder) / "pages", Path(folder) / "site"
            nav = write_pages(results, pages, conf, written)
            build(pages, site, nav)
            if output.exists():
                shutil.rmtree(output)
            site.replace(output)
    return output / "index.html"


def write_pages(
    results: Path, pages: Path, conf: Path = ROOT / "conf", written: Path = WRITTEN
) -> list[dict[str, Any]]:
    """Write all pages and the files that they show to the folder ``pages``; the navigation of the site.

    Raises:
        UserError: as :func:`make`.
    """
    if not results.is_dir():
        raise UserError(f"there is no folder '{results}'; name the folder of the results")
    figures, verdicts = read(conf, results), ledger.read(conf, results)
    findings, names = documents.text_of(results / "README.md"), [figure.name for figure in figures]
    judged = (results / ledger.FILE).exists()
    explained = documents.introduction(results / ledger.EXPLAINED) if judged else ""
    texts = {
        "index.md": overview.start(figures, verdicts),
        "claims.md": overview.claims(figures, verdicts, explained and documents.adapted(explained, "", names)),
        "table1.md": table1.page(figures, conf, results),
        "checks.md": checks.page(results),
        "settings.md": settings.page(conf),
    }
    for paper, found in papers(figures).items():
        texts[f"figures/{paper}.md"] = overview.gallery(paper, found, verdicts)
    for figure in figures:
        own = verdicts[verdicts["figure"] == figure.name]
        words = [documents.adapted(item, "", names, "../../") for item in documents.findings_on(findings, figure.name)]
        texts[f"figures/{figure.name}.md"] = _page_of(figure, own, words)
    for document, page in documents.PAGES.items():
        folder = posixpath.dirname(document)
        texts[page] = documents.adapted(documents.text_of(results / document), folder, names)
    for path in written.glob("*.md"):
        texts[path.name] = documents.text_of(path)
    shutil.copytree(SOURCES / "assets", pages / "assets")
    for name, text in texts.items():
        _parent(pages / name).write_text(text, encoding="utf-8")
    for figure in figures:
        for name, file in figure_page.files(figure).items():
            shutil.copyfile(file, _parent(pages / name))
    for path in table1.trials(results):
        shutil.copyfile(path, _parent(pages / "tuning" / path.name))
    if judged:
        shutil.copyfile(results / ledger.FILE, pages / ledger.FILE)
    return navigation(figures)


def _page_of(figure: Figure, verdicts: pd.DataFrame, findings: list[str]) -> str:
    """The page of a figure.

    Raises:
        UserError: its files have no checksums and are damaged in a way that shows only here.
    """
    try:
        return figure_page.page(figure, verdicts, findings)
    except UserError:
        raise
    except Exception as error:
        if all(one.checked for one in figure.results):  # the files are what was written, so the fault is not theirs
            raise
        places = " or ".join(f"'{one.csv}' or '{one.folder / provenance.FILE}'" for one in figure.results)
        raise UserError(
            f"{places} is damaged: no page can be made from them ({type(error).__name__}); {provenance.AGAIN}"
        ) from error


def navigation(figures: list[Figure]) -> list[dict[str, Any]]:
    """The navigation: tabs over sections, with every page in it."""
    tabs = [
        {PAPERS.get(paper, paper).partition(" (")[0]: [
            {"All figures": f"figures/{paper}.md"},
            *({f"{figure.label}": f"figures/{figure.name}.md"} for figure in found),
        ]}
        for paper, found in papers(figures).items()
    ]  # fmt: skip
    words = [
        {"Findings": "findings.md"},
        {"Checks of correctness": "checks.md"},
        {"What was easy, what was hard": "easy_and_hard.md"},
        {"Settings": "settings.md"},
        {"Speed": "speed.md"},
        {"Robustness": "robustness.md"},
        {"Mutation testing": "mutation.md"},
    ]
    return [{"Start": "index.md"}, {"Claims": ["claims.md", "table1.md"]}, *tabs, {"Findings": words}]


def build(pages: Path, site: Path, nav: list[dict[str, Any]]) -> None:
    """Let MkDocs build the pages; a warning of it is an error.

    Raises:
        UserError: MkDocs is not installed, or finds a fault in the pages.
    """
    try:
        import material  # noqa: F401
        from mkdocs.commands.build import build as build_site
        from mkdocs.config import load_config
        from mkdocs.exceptions import Abort, MkDocsException
    except ImportError as error:
        raise UserError(f"the report needs MkDocs ({error}); install it with: pip install -e '.[report]'") from error
    with _quiet() as told, _fixed_date():
        try:
            config = load_config(str(SOURCES / "report.yml"), docs_dir=str(pages), site_dir=str(site), nav=nav)
            config.plugins.on_startup(command="build", dirty=False)
            try:
                build_site(config)
            finally:
                config.plugins.on_shutdown()
        except (Abort, MkDocsException) as error:
            told.append(str(error))
    if told:
        raise UserError(f"MkDocs cannot build the report: {told[0]}")


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Collect the warnings of MkDocs instead of printing them."""
    told: list[str] = []

    class Collected(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(" ".join(record.getMessage().split()))

    logger, handler = logging.getLogger("mkdocs"), Collected(logging.WARNING)
    passed_on, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)
        logger.propagate = passed_on


@contextmanager
def _fixed_date() -> Iterator[None]:
    """Let MkDocs write the same bytes at any time: it writes this date into the sitemap and the archive of it."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = before or "315532800"  # 1980-01-01, the first date that archives can hold
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
