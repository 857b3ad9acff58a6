"""What the pages of the documentation take from the files of the repository, so that every text has one place.

A line of a page is replaced by what it names (a path is from the root of the repository):

    <!-- include: docs/library.md#the-report -->     a section of a document without its heading, or a whole document
    <!-- method: NullSpace -->                       a row of the README's table of methods
    <!-- program: examples/plain_loop.py -->         a program
    <!-- verdicts: mlp-early mlp-final -->           claims of results/claims.csv, with the number of lines per verdict
    <!-- findings: nullspace/fig8 -->                the items of results/README.md that name a figure
    <!-- gallery: nullspace -->                      a card per measured figure of a paper

A link to a file that a page shows leads to that page; of a link to another file its words and its path are left.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from experiments.errors import UserError
from experiments.report import documents, gallery, ledger
from experiments.report.figures import Figure, papers, read

ROOT = Path(__file__).resolve().parents[2]
PAGES = "docs/site/library"
ASSETS = ("iframe-worker.js", "cards.css", "filter.js")
SHARED = {f"assets/{name}": f"docs/site/assets/{name}" for name in ASSETS} | {"assets/idea.png": "docs/idea.png"}
"""Path in the site -> file of the repository."""
IN_PARTS = {"README.md": "index.md", "docs/library.md": "reference/contract.md"}
"""Document that several pages show in parts -> the page that a link to the whole of it leads to."""

DIRECTIVE = re.compile(r"^<!-- (\w+): (.+?) -->$", flags=re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]\n]+)\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", flags=re.DOTALL | re.MULTILINE)
VERDICTS = ("holds", "does not hold", "undecided", "not measured")

PICTURES = "figures"
"""The folder in the site with the pictures and tables of figures."""

_figures: list[Figure] = []
"""Every figure with its results."""
_shown: dict[str, str] = {}
"""What a page includes, ``document`` or ``document#section`` -> the page."""


def on_files(files: Files, config: Any) -> Files:
    """Add the files that sites share and those of the figures, and note which page shows what."""
    try:
        _figures[:] = read(ROOT / "conf", ROOT / "results")
    except UserError as error:
        raise PluginError(f"the figures cannot be shown: {error}") from error
    shared = {path: ROOT / source for path, source in SHARED.items()}
    shared |= {f"{PICTURES}/{path}": source for path, source in gallery.files(_figures).items()}
    for path, file in shared.items():
        files.append(File.generated(config, path, abs_src_path=str(file)))
    _shown.clear()
    _shown.update(IN_PARTS)
    for file in files.documentation_pages():
        for _, words in DIRECTIVE.findall(file.content_string):
            for name in words.split():
                _shown.setdefault(name, file.src_uri)
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """The page with its links and with everything that it names."""
    own = page.file.src_uri
    text = relinked(markdown, posixpath.dirname(f"{PAGES}/{own}"), own)
    try:
        return DIRECTIVE.sub(lambda found: SOURCES[found.group(1)](found.group(2), own), text)
    except (UserError, KeyError, OSError) as error:
        raise PluginError(f"the page '{own}' names what is not there: {error}") from error


def section(document: str, anchor: str) -> str:
    """A section of a document of Markdown, without its heading.

    Without an ``anchor`` all below the title, for ``introduction`` what is above the first table or heading.

    Raises:
        UserError: the document has no such section.
    """
    text = documents.text_of(ROOT / document)
    if not anchor:
        return text.partition("\n")[2]
    if anchor == "introduction":
        return documents.introduction(ROOT / document)
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        if slug(heading) == anchor:
            return body
    raise UserError(f"'{document}' has no section '{anchor}'")


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def relinked(text: str, folder: str, page: str) -> str:
    """``text`` of a document in ``folder`` of the repository with links for ``page``; code stays as it is."""
    spans = [(one.start(), one.end()) for one in CODE.finditer(text)]

    def link(found: re.Match[str]) -> str:
        inside = any(start <= found.start() and found.end() <= end for start, end in spans)
        return found.group() if inside else _link(found, folder, page)

    return LINK.sub(link, text)


def _link(found: re.Match[str], folder: str, page: str) -> str:
    picture, words, target = found.groups()
    path, _, anchor = target.partition("#")
    if re.match(r"[a-z]+:", target) or not path:
        return found.group()
    path = posixpath.normpath(posixpath.join(folder, path))
    here = posixpath.dirname(page) or "."
    if path.startswith(f"{PAGES}/"):
        return found.group()
    for shared, source in SHARED.items():
        if source == path:
            return f"{picture}[{words}]({posixpath.relpath(shared, here)})"
    for name in (f"{path}#{anchor}", path):
        if name in _shown and _shown[name] != page:
            return f"[{words}]({posixpath.relpath(_shown[name], here)})"
    if path in _shown:
        return words
    return words if path in words else f"{words} (`{path}`)"


def _include(words: str, page: str) -> str:
    document, _, anchor = words.partition("#")
    text = relinked(section(document, anchor), posixpath.dirname(document), page)
    return documents.indented(text).strip()


def _method(words: str, page: str) -> str:
    table = section("README.md", "which-method-when")
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if cells[0].startswith(f"`{words}`"):
            names = ("Promise", "Cost", "Models", "Needs")
            rows = "\n".join(f"| {name} | {cell} |" for name, cell in zip(names, cells[1:], strict=True))
            return f"| | `{words}` |\n|---|---|\n{rows}"
    raise UserError(f"the README's table of methods has no row '{words}'")


def _program(words: str, page: str) -> str:
    return f"```python\n{documents.text_of(ROOT / words).strip()}\n```"


def _verdicts(words: str, page: str) -> str:
    names = words.split()
    with (ROOT / "results" / "claims.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["id"] in names]
    missing = set(names) - {row["id"] for row in rows}
    if missing:
        raise UserError(f"results/claims.csv has no claim '{min(missing)}'")
    return "\n".join(["| claim | figure | verdicts |", "|---|---|---|", *_lines(names, rows)])


def _lines(names: list[str], rows: list[dict[str, str]]) -> Iterator[str]:
    for name in names:
        own = [row for row in rows if row["id"] == name]
        for figure in dict.fromkeys(row["figure"] for row in own):
            lines = [row for row in own if row["figure"] == figure]
            counted = Counter(row["verdict"] for row in lines)
            told = ", ".join(f"{verdict}: {counted[verdict]}" for verdict in VERDICTS if counted[verdict])
            judged = [row for row in lines if row["verdict"] != VERDICTS[-1]]
            older = " (older table)" if any(row["rule_first"] == "no" for row in judged) else ""
            claim = own[0]["claim"].replace("|", "\\|")
            yield f"| {claim} | {figure} | {told}{older} |"


def _findings(words: str, page: str) -> str:
    text = documents.text_of(ROOT / "results" / "README.md")
    found: list[str] = []
    for figure in words.split():
        items = documents.findings_on(text, figure)
        if not items:
            raise UserError(f"results/README.md names the figure '{figure}' nowhere")
        found += [item for item in items if item not in found]
    return documents.indented(relinked("\n\n".join(found), "results", page)).strip()


def _gallery(words: str, page: str) -> str:
    own = papers(_figures).get(words)
    if own is None:
        raise UserError(f"there is no folder 'conf/figure/{words}'")
    folder, results = posixpath.relpath(PICTURES, posixpath.dirname(page) or "."), ROOT / "results"
    return gallery.whole(own, folder, ledger.read(ROOT / "conf", results), results)


SOURCES = {
    "include": _include,
    "method": _method,
    "program": _program,
    "verdicts": _verdicts,
    "findings": _findings,
    "gallery": _gallery,
}
