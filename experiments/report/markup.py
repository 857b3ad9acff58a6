"""Pieces of Markdown and HTML that pages are made of."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

NOT_JUDGED = "not judged yet"


def escaped(text: object) -> str:
    """A text with the characters that Markdown or HTML would read otherwise as entities, on one line."""
    line = " ".join(html.escape(str(text), quote=False).split())
    return re.sub(r"[\\`*_\[\]|{}#~^$=]", lambda found: f"&#{ord(found.group())};", line)


def code(text: object) -> str:
    """A text in the typeface of code, in one line that may break after a slash."""
    inner = escaped(text).replace("/", "/<wbr>")
    return f"<code>{inner}</code>" if inner else ""


def fenced(text: str, language: str = "") -> str:
    """A block of code; the fence is longer than any in the text."""
    longest = max((len(found) for found in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: object, digits: int = 3) -> str:
    """A number to ``digits`` significant digits; an empty text for a missing one, and any other text as it is."""
    try:
        real = float(str(value))
    except ValueError:
        return escaped(value)
    if math.isnan(real):
        return ""
    return str(int(real)) if real.is_integer() and abs(real) < 1e15 else f"{real:.{digits}g}"


def mean(value: float, deviation: float) -> str:
    """A mean and the standard deviation around it, if there is one, in one line."""
    spread = number(deviation, 2)
    return number(value) + (f"&nbsp;±&nbsp;{spread}" if spread else "")


def badge(word: str) -> str:
    """A state or verdict as a coloured label; its colour follows from the word (``assets/cards.css``)."""
    kind = re.sub(r"[^a-z]+", "-", word.lower()).strip("-")
    return f'<span class="badge badge-{kind}">{escaped(word)}</span>'


def picture(source: str, words: str, size: tuple[int, int]) -> str:
    """A picture of known size in pixels that leads to its own file."""
    width, height = size
    shown = f'![{escaped(words)}]({source}){{ width="{width}" height="{height}" loading="lazy" }}'
    return f"[{shown}]({source})"


def filterable(what: str, inside: str) -> str:
    """A part of a page whose rows or cards can be filtered by words and labels (``assets/filter.js``)."""
    return f'<div class="filterable" data-what="{html.escape(what)}" markdown>\n\n{inside}\n\n</div>'
