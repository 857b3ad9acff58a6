"""The ledgers of claims, ``conf/claims/<paper>.yaml``: one entry per claim, one line per comparison that decides it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from experiments.errors import UserError, one_of

EPOCHS, SECONDS, TUNED = "equal epochs", "equal seconds", "tuned control"
DIRECTIONS = ("lower", "higher", "not lower", "not higher", "equal", "different")
CHOICES = {
    "direction": DIRECTIONS,
    "unit": ("relative", "absolute"),
    "rule": ("mean", "every", "some"),
    "reduce": ("", "mean", "max", "min", "sum"),
}
OPERATORS = ("above", "at_least", "below", "at_most")


@dataclass(frozen=True)
class Line:
    """One comparison that decides a claim; ARCHITECTURE.md describes the keys of an entry."""

    paper: str
    ledger: str
    id: str
    place: str
    claim: str
    case: str
    """The values of ``each`` that this line is about: ``optimizer=sgd``."""
    at: str
    figure: str
    quantity: str
    direction: str
    smallest: float
    unit: str
    first: dict[str, Any]
    pairs: list[str] = field(default_factory=list)
    second: dict[str, Any] | None = None
    value: float | None = None
    second_quantity: str = ""
    deviation_from: float | None = None
    growth: str = ""
    reduce: str = ""
    observations: list[str] = field(default_factory=list)
    average: dict[str, list[Any]] = field(default_factory=dict)
    best_over: str = ""
    epoch: float | str | None = None
    second_epoch: float | str | None = None
    step: int | None = None
    rule: str = "mean"

    @property
    def name(self) -> str:
        """The name of the line in messages."""
        return " ".join(part for part in (self.id, self.case, self.at) if part)

    @property
    def columns(self) -> list[str]:
        """The columns of its table by which the line selects and pairs rows."""
        sides = [*self.first, *(self.second or {})]
        return [*dict.fromkeys([*sides, *self.pairs, *self.observations, *self.average, self.best_over, self.growth])]

    def decides(self) -> dict[str, Any]:
        """What decides the verdict: the line without the words about it."""
        words = ("paper", "place", "claim")
        return {key: value for key, value in asdict(self).items() if key not in words}


OF_ENTRY = {*(each.name for each in fields(Line))} - {"paper", "ledger", "case"} | {"where", "each", "tuned"}
NEEDED = ("id", "place", "claim", "figure", "quantity", "direction", "smallest", "unit")


def read(path: Path, figures: Path) -> list[Line]:
    """The lines of a ledger.

    Args:
        path: of the YAML file.
        figures: ``conf/figure``, with the configurations that entries may name.

    Raises:
        UserError: the file cannot be read, or an entry has a mistake.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the ledger '{path}' cannot be read: {error}; get it back from git") from error
    lines = parse(text, path.stem)
    for line in lines:
        if not (figures / f"{line.figure}.yaml").is_file():
            known = sorted(file.relative_to(figures).with_suffix("").as_posix() for file in figures.rglob("*.yaml"))
            raise one_of(f"figure of the claim '{line.id}'", line.figure, known)
    return lines


def parse(text: str, ledger: str) -> list[Line]:
    """The lines of a ledger's text.

    Args:
        text: YAML.
        ledger: its name, for messages.

    Raises:
        UserError: it is not a ledger, or an entry has a mistake.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"the ledger '{ledger}' is not YAML: {' '.join(str(error).split())}") from error
    claims = content.get("claims") if isinstance(content, dict) else None
    if not isinstance(claims, list) or not isinstance(content.get("paper"), str):
        raise UserError(f"the ledger '{ledger}' needs 'paper', a text, and 'claims', a list")
    lines: list[Line] = []
    for number, entry in enumerate(claims):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise UserError(f"entry {number + 1} of the ledger '{ledger}' has no 'id'; give it one")
        if any(line.id == entry["id"] for line in lines):
            raise UserError(f"the ledger '{ledger}' has two claims '{entry['id']}'; give one of them another id")
        lines += _lines(entry, content["paper"], ledger)
    return lines


def _lines(entry: Mapping[str, Any], paper: str, ledger: str) -> list[Line]:
    """One line for each combination of the values of ``each``, and for each comparison of ``at``."""
    _check(entry)
    each = entry.get("each", {})
    lines = []
    for values in itertools.product(*each.values()):
        for at in entry.get("at", [""]):
            keys = copy.deepcopy(dict(entry))
            tuned = keys.pop("tuned", {})
            keys |= tuned if at == TUNED else {}
            sides = {side: keys.get(side) for side in ("first", "second")}
            where = dict(keys.pop("where", {}))
            for key, value in zip(each, values, strict=True):
                side, _, column = key.partition(".")
                if side in sides and column:
                    sides[side] = {**(sides[side] or {}), column: value}
                else:
                    where[key] = value
            names = [key.removeprefix("first.").removeprefix("second.") for key in each]
            case = " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
            keys |= {"first": where | (sides["first"] or {}), "at": at, "case": case}
            if sides["second"] is None and entry.get("second_quantity"):  # two columns of the same rows
                sides["second"] = sides["first"] or {}
            keys["second"] = None if sides["second"] is None else where | sides["second"]
            keys.pop("each", None)
            lines.append(Line(paper=paper, ledger=ledger, **keys))
    return lines


def _check(entry: Mapping[str, Any]) -> None:
    """Raise a ``UserError`` for the first mistake of an entry."""
    claim = f"the claim '{entry['id']}'"
    for key in [*entry, *entry.get("tuned", {})]:
        if key not in OF_ENTRY:
            raise one_of(f"key of {claim}", key, sorted(OF_ENTRY))
    for key in NEEDED:
        if key not in entry:
            raise UserError(f"{claim} needs '{key}'")
    for key, known in CHOICES.items():
        if entry.get(key, known[0]) not in known:
            raise one_of(f"{key} of {claim}", str(entry[key]), list(known))
    for key in ("pairs", "observations", "at"):
        if not isinstance(entry.get(key, []), list):
            raise UserError(f"'{key}' of {claim} must be a list")
    for at in entry.get("at", []):
        if at not in (EPOCHS, SECONDS, TUNED):
            raise one_of(f"comparison of {claim}", str(at), [EPOCHS, SECONDS, TUNED])
    for key in ("where", "each", "first", "second", "average", "tuned"):
        if not isinstance(entry.get(key, {}), dict):
            raise UserError(f"'{key}' of {claim} must map columns to values")
    if isinstance(entry["smallest"], bool) or not isinstance(entry["smallest"], int | float) or entry["smallest"] < 0:
        raise UserError(f"'smallest' of {claim} must be a number of at least 0")
    two = any(key.startswith("second") for key in [*entry, *entry.get("each", {})] if key != "second_epoch")
    if two == ("value" in entry):
        raise UserError(f"{claim} needs either 'second', the other side of the comparison, or 'value', a number")
    if "epoch" in entry and "step" in entry:
        raise UserError(f"{claim} has both 'epoch' and 'step'; leave out one of them")
    if ("at" in entry) != ("epoch" in entry or "step" in entry):
        raise UserError(f"{claim} needs 'at' together with 'epoch' or 'step', or none of them")
    for column, allowed in [pair for side in ("where", "first", "second") for pair in entry.get(side, {}).items()]:
        for operator in allowed if isinstance(allowed, dict) else ():
            if operator not in OPERATORS:
                raise one_of(f"operator on '{column}' of {claim}", operator, list(OPERATORS))
