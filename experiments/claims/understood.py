"""What was tried to understand the claims that do not hold (``results/understood.yaml``), beside their verdicts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from experiments.errors import UserError

NAME = "understood.yaml"


@dataclass(frozen=True)
class Understood:
    """What is known about why a claim does not hold.

    Attributes:
        tried: what was measured to find the reason, and what came out.
        open: what is not known; empty if the reason is.
        see: the commands that show it.
    """

    tried: str
    see: tuple[str, ...]
    open: str = ""

    def __str__(self) -> str:
        """As paragraphs of Markdown."""
        text = f"What was tried: {self.tried}"
        if self.open:
            text += f" Open: {self.open}"
        return "\n".join([text, "", *(f"    {command}" for command in self.see), ""])


def read(results: Path) -> dict[str, Understood]:
    """Claim -> what is known about why it does not hold; empty if ``results`` has no such file.

    Raises:
        UserError: the file has another form.
    """
    path = results / NAME
    if not path.is_file():
        return {}
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is not YAML: {error}") from error
    if not isinstance(entries, dict):
        raise UserError(f"'{path}' must map claims to what was tried")
    return {name: _entry(path, name, entry) for name, entry in entries.items()}


def _entry(path: Path, name: str, entry: Any) -> Understood:
    known = {each.name for each in fields(Understood)}
    if not isinstance(entry, dict) or not {"tried", "see"} <= set(entry) <= known:
        raise UserError(f"'{name}' in '{path}' must have the keys tried and see, and may have open")
    if not isinstance(entry["see"], list) or not all(isinstance(command, str) for command in entry["see"]):
        raise UserError(f"'see' of '{name}' in '{path}' must be a list of commands")
    texts = {key: " ".join(str(entry[key]).split()) for key in ("tried", "open") if key in entry}
    return Understood(see=tuple(entry["see"]), **texts)
