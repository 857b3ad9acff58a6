"""Docstrings as Markdown: roles of reStructuredText become links, and ``::`` before a block of code becomes ``:``."""

from __future__ import annotations

import re
from typing import Any

import griffe

import teleport

ROLE = re.compile(r":(?:class|func|data|meth|attr):`~?([\w.]+)`")
PUBLIC = frozenset(dir(teleport))


class Roles(griffe.Extension):
    """The links of docstrings, before mkdocstrings parses them."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of any module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """``docstring`` with links to public names, and other names as code."""
    return re.sub(r"::\n", ":\n", ROLE.sub(_linked, docstring))


def _linked(found: re.Match[str]) -> str:
    name = found.group(1).removeprefix("teleport.")
    return f"[`{name}`][teleport.{name}]" if name.partition(".")[0] in PUBLIC else f"`{name}`"
