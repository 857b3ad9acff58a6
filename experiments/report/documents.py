"""The written documents of results/ as pages, and the findings that name a figure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from experiments.errors import UserError

PAGES = {
    "README.md": "findings.md",
    "benchmark/README.md": "speed.md",
    "robustness/README.md": "robustness.md",
    "mutation/README.md": "mutation.md",
}
"""Document below results/ -> its page."""

LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)")
FIGURE_FOLDER = re.compile(r"`results/([a-z_]+/[a-z0-9_]+)`")


def text_of(path: Path) -> str:
    """The text of a document.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the document '{path}' cannot be read; get the file back from git") from error


def introduction(path: Path) -> str:
    """What a document says under its title, up to its first table or heading.

    Raises:
        UserError: it cannot be read.
    """
    return re.split(r"\n(?=\||#)", text_of(path).partition("\n")[2])[0].strip()


def adapted(text: str, folder: str, figures: Iterable[str], base: str = "") -> str:
    """A text of results/ as Markdown of the site.

    Args:
        text: of a document.
        folder: of the document below results/, from which its links lead.
        figures: names of figures, which become links where the text names their folders.
        base: what leads from the page to the site's root, ``../../`` for the page of a figure.
    """
    known = set(figures)
    text = LINK.sub(lambda found: _relinked(found, folder, base), indented(text))

    def to_figure(found: re.Match[str]) -> str:
        name = found.group(1)
        return f"[{found.group()}]({base}figures/{name}.md)" if name in known else found.group()

    return FIGURE_FOLDER.sub(to_figure, text)


def indented(text: str) -> str:
    """``text`` with lists as Python-Markdown needs them.

    What belongs to an item is indented by four spaces instead of two, and a blank line ends an item of several blocks.
    """
    fence, lines = False, [""]
    several = False  # blocks in the item
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fence = not fence
        if fence:
            lines.append(line)
        elif re.match(r"  (?! )", line):
            several |= not lines[-1]
            lines.append("  " + line)
        else:
            if several and line.startswith("- ") and lines[-1]:
                lines.append("")
            several &= not line
            lines.append(line)
    return "\n".join(lines[1:]) + "\n"


def findings_on(text: str, figure: str) -> list[str]:
    """The items of a list of findings that name a figure: its folder, its command or its file."""
    named = re.compile(rf"(?:results/|figure=){re.escape(figure)}(?![\w-])")
    items = re.split(r"\n(?=- |#|\S[^\n]*\n\n- )", text)
    return [item.strip("\n") for item in items if item.startswith("- ") and named.search(item)]


def _relinked(found: re.Match[str], folder: str, base: str) -> str:
    """A link of a document for the site: to another page of it, outside, or the words alone."""
    words, target = found.groups()
    if re.match(r"[a-z]+:", target):
        return found.group()
    path, _, anchor = target.partition("#")
    if not path:
        return found.group()
    path = posixpath.normpath(posixpath.join(folder, path))
    for document in (path, f"{path}/README.md"):
        if document in PAGES:
            return f"[{words}]({base}{PAGES[document]}{'#' + anchor if anchor else ''})"
    return words
