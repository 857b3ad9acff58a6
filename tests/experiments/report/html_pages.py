"""Pages of a site, read with the standard library: texts, identifiers, links and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
SILENT = {"script", "style"}
CODE = {"code", "pre"}


@dataclass
class Page(HTMLParser):
    """What one HTML file says."""

    path: Path
    text: str = ""
    prose: str = ""  # the text without code
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(self.path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        self.open.append(tag)
        if held.get("id"):
            self.ids.add(held["id"])
        if tag == "a" and held.get("href") is not None:
            (self.downloads if "download" in held else self.links).append(held["href"])
        self.loaded += [held[name] for kind, name in LOADED if kind == tag and held.get(name)]
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th") and self.cells:
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if SILENT & set(self.open):
            return
        self.text += data
        self.prose += "" if CODE & set(self.open) else data
        if self.cells and self.cells[-1] and {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data


def pages_of(site: Path) -> dict[str, Page]:
    """Every HTML file of a site, by its path in it; 404.html is for servers."""
    found = {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}
    found.pop("404.html", None)
    return found


def target_of(page: Page, link: str) -> tuple[Path, str] | None:
    """The file and the anchor that a link leads to; ``None`` if it leads out of the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = page.path if not parts.path else (page.path.parent / unquote(parts.path)).resolve()
    return path, unquote(parts.fragment)
