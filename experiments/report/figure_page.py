"""The page of one figure: the picture beside the claim, then verdicts, numbers, words, settings and origin."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.errors import UserError
from experiments.figures import table as tables
from experiments.figures.compare import compare
from experiments.report import ledger
from experiments.report.figures import Figure, Results
from experiments.report.markup import badge, code, escaped, fenced, mean, number, picture, table
from experiments.report.settings import opened_by_click

FRONT = "---\ntitle: {title}\nhide: [navigation, toc]\n---\n\n"
WHERE = "results/README.md"


def page(figure: Figure, verdicts: pd.DataFrame, findings: list[str]) -> str:
    """The page ``figures/<paper>/<name>.md``; files of its results lie in a folder of its name beside it.

    Args:
        figure: with its results.
        verdicts: the ledger's rows on it.
        findings: those that name the figure, as Markdown of this page.
    """
    title = f"{figure.label}: {figure.title}"
    front = FRONT.format(title=_quoted(f"{figure.label}, {figure.paper}"))
    parts = [f"# {escaped(title)}", _beside(figure, verdicts)]
    for one in figure.results[1:]:
        parts += [
            f"## {_scale(one)}",
            f'<div class="picture" markdown>\n\n{_picture(figure, one)}\n\n</div>',
            _download(figure, one),
        ]
    parts += ["## Verdicts", _verdicts(verdicts)]
    for one in figure.results:
        if compared := numbers(one):
            parts += [_heading("In numbers", figure, one), compared]
    parts += ["## In words", "\n\n".join(findings) or f"No finding in {code(WHERE)} names this figure."]
    parts += ["## Settings", *_settings(figure)]
    parts += ["## Provenance", *(_origin(one) for one in figure.results)]
    if not figure.results:
        parts += ["Nothing was measured yet."]
    return front + "\n\n".join(parts) + "\n"


def files(figure: Figure) -> dict[str, Any]:
    """Path in the site -> the file to copy there: the table and the picture of each folder of results."""
    copied = {}
    for one in figure.results:
        for file in (one.csv, one.picture):
            copied[f"figures/{figure.paper}/{_file(one, file.suffix)}"] = file
    return copied


def command(figure: Figure) -> str:
    """The command that makes the figure."""
    return f"make reproduce FIG={figure.name}"


def states(figure: Figure, verdicts: pd.DataFrame) -> str:
    """The figure's verdicts as labels, with their counts; or that it is not measured."""
    if not figure.results:
        return badge("not measured")
    counts = [f"{badge(verdict)}&nbsp;{count}" for verdict, count in ledger.tally(verdicts).items()]
    return " ".join(counts) or badge("no claim")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _file(one: Results, suffix: str) -> str:
    return f"{one.folder.name}/{one.csv.stem}{suffix}"


def _scale(one: Results) -> str:
    """What a folder of results is of, in words."""
    scale = one.table["scale"].iloc[0]
    return f"At {escaped(scale)} scale" + (f" ({code(one.folder.name)})" if "-" in one.folder.name else "")


def _heading(words: str, figure: Figure, one: Results) -> str:
    return f"## {words}" + (f", {_scale(one)[0].lower()}{_scale(one)[1:]}" if len(figure.results) > 1 else "")


def _beside(figure: Figure, verdicts: pd.DataFrame) -> str:
    """The picture, and beside it the claim, the verdicts in short, the command and the table."""
    if figure.results:
        shown = _picture(figure, figure.results[0])
    else:
        shown = f"{badge('not measured')}\n\nThe command beside this makes the runs, the table and the picture."
    own = figure.claim.startswith("Our own question")
    text = [
        f"**{'What is asked' if own else 'What the paper says'}**",
        escaped(figure.claim),
        "**What came out**",
        states(figure, verdicts),
        "**Command**",
        fenced(command(figure), "sh"),
    ]
    if figure.results:
        text.append(_download(figure, figure.results[0]))
    return "\n\n".join(
        ['<div class="beside" markdown>', '<div class="picture" markdown>', shown, "</div>",
         '<div class="claim" markdown>', *text, "</div>", "</div>"]
    )  # fmt: skip


def _picture(figure: Figure, one: Results) -> str:
    return picture(_file(one, one.picture.suffix), f"{figure.label}: {figure.title}", one.size)


def _download(figure: Figure, one: Results) -> str:
    rows = len(one.table)
    return f"[Table (CSV, {rows} rows)]({_file(one, one.csv.suffix)}){{ download }}"


def _verdicts(verdicts: pd.DataFrame) -> str:
    if verdicts.empty:
        return "No claim of the ledger (`conf/claims/`) is decided by this figure."
    return ledger.by_claim(verdicts)


def numbers(one: Results) -> str:
    """Losses per method at the end and after equal seconds, if the figure's table is of curves."""
    if "event" not in one.table or "train_loss" not in one.table:
        return ""
    try:
        compared = compare(one.table)
    except UserError as error:
        return f"No comparison in numbers: {escaped(error)}."
    if compared.empty:
        return ""
    labels = list(compared.columns[: compared.columns.get_loc("seeds")])
    same = [label for label in labels if compared[label].nunique(dropna=False) == 1 and len(compared) > 1]
    labels = [label for label in labels if label not in same]
    head = [*map(escaped, labels), "seeds", "training loss", "test loss", "at equal seconds", "seconds"]
    rows = [
        [
            *(number(row[label]) for label in labels),
            number(row["seeds"]),
            *(_mean(row, name) for name in ("train_end", "test_end", "same_seconds", "seconds")),
        ]
        for _, row in compared.iterrows()
    ]
    note = (
        "Mean and standard deviation over seeds, at the end of each run; *at equal seconds* is the training loss when "
        "the fastest method of the row's task ends. The same numbers: "
        + code(f"python scripts/compare.py results/{one.origin['figure'].rpartition('/')[0]}/{one.folder.name}")
        + "."
    )
    if same:
        note += " In every row: " + ", ".join(code(f"{label}={compared[label].iloc[0]}") for label in same) + "."
    return f"{note}\n\n{table(head, rows)}"


def _mean(row: pd.Series, name: str) -> str:
    return mean(row[name], row[f"{name}_std"])


def _settings(figure: Figure) -> list[str]:
    """What varies over the runs that were made, and the figure's file."""
    parts = []
    for one in figure.results[:1]:
        values: dict[str, dict[str, None]] = {}
        for run in one.origin.get("runs", {}).values():
            for key, value in run["labels"].items():
                values.setdefault(key, {})[str(value)] = None
        rows = [[code(key), ", ".join(map(escaped, found))] for key, found in values.items()]
        if rows:
            parts += [table(["Key", "Values over the runs"], rows)]
    parts += ["What the runs are composed of is on the page of [settings](../../settings.md)."]
    return [*parts, opened_by_click(f"conf/figure/{figure.name}.yaml", figure.source)]


def _origin(one: Results) -> str:
    """Where a folder of results comes from."""
    origin, environments = one.origin, one.origin.get("environments", [])
    machines = dict.fromkeys(_machine(each) for each in environments)
    commits = dict.fromkeys(str(each.get("commit")) for each in environments)
    failed = origin.get("failed", [])
    rows = [
        ["Command", code(origin.get("command", ""))],
        ["Date", escaped(origin.get("date", "unknown"))],
        ["Commit of the figure", _commit(origin.get("commit"))],
        ["Commits of its runs", ", ".join(map(_commit, commits)) or "no runs"],
        ["Hardware", "; ".join(map(escaped, machines)) or "not recorded: no runs"],
        ["Runs", f"{len(origin.get('runs', {}))} finished, {len(failed)} failed"],
        ["Scale, version of results", ", ".join(escaped(one.table[key].iloc[0]) for key in tables.CONSTANT)],
        ["SHA-256 of the table", code(origin.get("table_sha256", "")) or "not recorded"],
    ]  # fmt: skip
    text = table([_scale(one), ""], rows)
    if failed:
        reasons = dict.fromkeys(str(each["reason"]) for each in failed)
        text += "\n\nFailed because: " + "; ".join(map(escaped, reasons))
    return text


def _machine(environment: dict[str, Any]) -> str:
    packages = environment.get("packages", {})
    return (
        f"{environment.get('device_name')} ({environment.get('device')}), threads: {environment.get('threads')}, "
        f"torch {packages.get('torch')}, Python {environment.get('python')}"
    )


def _commit(commit: object) -> str:
    text = str(commit or "")
    if not text or text == "None":
        return "outside of git"
    return code(text[:12]) + (" with uncommitted changes" if text.endswith("+") else "")
