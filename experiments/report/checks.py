"""The table of correctness checks: what was checked, how often, and the worst error, from committed tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.errors import UserError
from experiments.report.markup import badge, code, escaped, number, table

Worst = tuple[int, float]
"""The number of cases and the worst error among them."""


@dataclass(frozen=True)
class Check:
    """One row of the table. ``error`` takes the rows of a table; ``source`` is a pattern of tables below results/."""

    what: str
    measure: str  # of the error
    source: str
    error: Callable[[pd.DataFrame], Worst]
    command: str
    test: str = ""


def _figure(what: str, measure: str, name: str, error: Callable[[pd.DataFrame], Worst], test: str = "") -> Check:
    """A check on the table of a figure."""
    source = f"{name}/{name.rpartition('/')[2]}.csv"
    return Check(what, measure, source, error, f"python run.py figure={name}", test)


def _benchmark(what: str, measure: str, subject: str, error: Callable[[pd.DataFrame], Worst], test: str = "") -> Check:
    """A check on the tables of a benchmark, one per machine."""
    return Check(what, measure, f"benchmark/{subject}-*.csv", error, f"python scripts/benchmark.py {subject}", test)


def _largest(errors: pd.Series) -> Worst:
    return len(errors), float(errors.abs().max())


def _of(column: str, **where: object) -> Callable[[pd.DataFrame], Worst]:
    """The largest absolute value of a column over the rows that agree with ``where``."""

    def error(rows: pd.DataFrame) -> Worst:
        for key, value in where.items():
            rows = rows[rows[key] == value]
        return _largest(rows[column].dropna())

    return error


def _level_curve(precision: str) -> Callable[[pd.DataFrame], Worst]:
    def error(rows: pd.DataFrame) -> Worst:
        own = rows[rows["precision"] == precision]
        return _largest(own["loss_after"] / own["loss_before"] - 1)

    return error


def _walk(method: str) -> Callable[[pd.DataFrame], Worst]:
    def error(rows: pd.DataFrame) -> Worst:
        own = rows[rows["method"] == method]["loss"]
        return _largest(own / own.iloc[0] - 1)

    return error


def _exact_null_space(rows: pd.DataFrame) -> Worst:
    own = rows[rows["threshold"] == 1.0]["loss"]
    return _largest(own / own.iloc[0] - 1)


def _right_angle(rows: pd.DataFrame) -> Worst:
    return _largest(90 - rows["micro_gradient"])


def _against_rounding(rows: pd.DataFrame) -> Worst:
    return _largest(rows["difference"] / rows["rounding"])


def _below_cap(rows: pd.DataFrame) -> Worst:
    """How far below the cap a landing ends at most; the fields of rows without a landing are empty."""
    lowest = rows["lowest"].dropna()
    return int(rows["landings"].sum()), float((1 - lowest).max())


def _polynomial(rows: pd.DataFrame) -> Worst:
    """Residuals of a fit of the squared norm by a polynomial of twice as many degrees as layers move."""
    kept = rows[rows["moving"].isin([1, 2, 3, 4]) & rows["network"].str.startswith("mlp")]
    kept = kept.drop_duplicates("network")
    return _largest(pd.Series([row[f"residual_{2 * int(row['moving'])}"] for _, row in kept.iterrows()], dtype=float))


def _survivors(rows: pd.DataFrame) -> Worst:
    return len(rows), float((rows["outcome"] != "killed").mean())


BASIS_TESTS = "tests/teleport/change_of_basis"
NULL_TESTS = "tests/teleport/null_space"
OUTPUT = "of the largest output"
CHECKS = [
    _figure("A change of basis keeps the outputs of nine kinds of networks, single precision", OUTPUT,
            "neural/outputs", _of("difference", precision="float32"), BASIS_TESTS),
    _figure("The same in double precision", OUTPUT,
            "neural/outputs", _of("difference", precision="float64"), BASIS_TESTS),
    _figure("A change of basis keeps the outputs of every classification model of torchvision, single precision",
            OUTPUT, "neural/coverage", _of("difference"), BASIS_TESTS),
    _figure("The same, against the effect of rounding alone on the same network", "times rounding",
            "neural/coverage", _against_rounding, BASIS_TESTS),
    _figure("The loss stays over a hundred changes of basis of an MLP 5x500, single precision", "of the loss",
            "neural/level_curve", _level_curve("float32"), BASIS_TESTS),
    _figure("The same in double precision", "of the loss", "neural/level_curve", _level_curve("float64"), BASIS_TESTS),
    _figure("A micro-teleport is perpendicular to the gradient", "degrees from a right angle",
            "neural/fig4", _right_angle, BASIS_TESTS),
    _benchmark("A change of basis keeps the outputs where its speed is measured, single precision", OUTPUT,
               "change_of_basis", _of("difference"), BASIS_TESTS),
    _figure("A group action keeps the loss, double precision", "of the loss",
            "nullspace/fig1", _walk("symmetry"), "tests/teleport/symmetry"),
    _figure("Steps in the null space keep the loss, double precision", "of the loss",
            "nullspace/fig1", _walk("nullspace"), NULL_TESTS),
    _figure("Steps in the exact null space keep the loss of a transformer, single precision", "of the loss",
            "nullspace/fig6b", _exact_null_space, NULL_TESTS),
    _benchmark("The streamed basis of a null space spans that of a singular value decomposition, double precision",
               "sine of the largest principal angle", "basis", _of("sine", method="streamed"), "tests/teleport/spaces"),
    _benchmark("A step that is shortened for the cap ends at the cap", "of the cap, below it",
               "landing", _below_cap, "tests/teleport/engine"),
    _benchmark("The squared gradient norm along a step is a polynomial of twice as many degrees as layers move, "
               "double precision", "residual of the fit", "landing", _polynomial, "tests/teleport/engine"),
    Check("Tests find a changed operator, number or condition in teleport/ (mutation testing)",
          "of the mutants survive", "mutation/mutants.jsonl", _survivors,
          "python scripts/mutation.py --sample 400 --seed 0", "tests/teleport"),
]  # fmt: skip


def page(results: Path) -> str:
    """``checks.md``.

    Raises:
        UserError: a table is damaged.
    """
    rows = [cells for check in CHECKS for cells in _rows(check, results)]
    head = ["What was checked", "Cases", "Worst error", "Table", "Command", "Tests of the same"]
    return (
        "---\nhide: [navigation, toc]\n---\n\n# Checks of correctness\n\nEach line is computed from a committed table "
        "when this report is made. Double precision rounds at 1e-16, single at 6e-8. What else was tried, and what was "
        f"wrong, is on the page of [robustness](robustness.md).\n\n{table(head, rows)}\n"
    )


def _rows(check: Check, results: Path) -> list[list[str]]:
    paths = sorted(results.glob(check.source))
    first, last = escaped(check.what), [code(check.command), code(check.test)]
    if not paths:
        return [[first, "", badge("not measured"), code(check.source), *last]]
    cells = []
    for path in paths:
        cases, worst = _worst(check, path)
        name = code(f"results/{path.relative_to(results).as_posix()}")
        cells.append([first, str(cases), f"{number(worst, 2)} {escaped(check.measure)}", name, *last])
    return cells


def _worst(check: Check, path: Path) -> Worst:
    """The check's number from one table.

    Raises:
        UserError: the table does not have what the check needs.
    """
    again = f"make it again with: {check.command}"
    try:
        rows = pd.read_json(path, lines=True) if path.suffix == ".jsonl" else pd.read_csv(path)
        cases, worst = check.error(rows)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"the table '{path}' is damaged: it lacks what a check of correctness reads; {again}"
        ) from error
    if not cases or pd.isna(worst):
        raise UserError(f"the table '{path}' has no row for a check of correctness; {again}")
    return cases, worst
