"""Runs side by side as one interactive HTML file that needs no network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import cycle

from experiments.errors import UserError
from experiments.figures.style import PALETTE
from experiments.show.panels import panels, spread_over_decades
from experiments.show.shown_run import ShownRun

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 76rem; padding: 0 1rem }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }} td, th {{ border: 1px solid #ccc;
padding: .2rem .5rem; text-align: left }}</style></head>
<body><h1>{title}</h1>{plot}<h2>Settings that differ</h2>{table}</body></html>
"""


def write(lines: dict[str, list[ShownRun]], keys: Sequence[str]) -> str:
    """The page: the panels of the picture, each run with its name, and a table of the settings that differ.

    Args:
        lines: of the runs.
        keys: in which they differ.

    Raises:
        UserError: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise UserError(f"the page needs plotly ({error}); install it with: pip install -e '.[show]'") from error
    runs = [run for each in lines.values() for run in each]
    rows = panels(runs)
    widths = [[{"colspan": 6 // len(row)}, *[None] * (6 // len(row) - 1)] * len(row) for row in rows]
    figure = make_subplots(len(rows), 6, specs=widths, subplot_titles=[panel.title for row in rows for panel in row])
    for line, color in zip(lines, cycle(PALETTE), strict=False):
        for number, run in enumerate(lines[line]):
            name = html.escape(f"{line}, seed {run.settings.get('seed')}")
            for place, row in enumerate(rows, 1):
                for column, panel in enumerate(row):
                    values = panel.values(run)
                    trace = go.Scatter(
                        x=values["at"].tolist(),
                        y=values["value"].tolist(),
                        mode="markers" if panel.of_events else "lines+markers",
                        line={"color": color},
                        marker={"color": color, "size": 7 if panel.of_events else 4},
                        name=line,
                        legendgroup=line,
                        showlegend=place == 1 and column == 0 and number == 0,
                        hovertemplate=f"{name}<br>{panel.x} %{{x:.4g}}<br>{panel.title} %{{y:.5g}}<extra/>",
                    )
                    figure.add_trace(trace, row=place, col=1 + column * (6 // len(row)))
    for place, row in enumerate(rows, 1):
        for column, panel in enumerate(row):
            at = {"row": place, "col": 1 + column * (6 // len(row))}
            figure.update_xaxes(title_text=panel.x, **at)
            if spread_over_decades(panel, runs):
                figure.update_yaxes(type="log", **at)
    figure.update_layout(template="simple_white", height=320 * len(rows) + 120, legend={"orientation": "h", "y": 1.12})
    plot = figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False, "responsive": True})
    title = f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
    return PAGE.format(title=title, plot=plot, table=_table(runs, keys))


def _table(runs: Sequence[ShownRun], keys: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(word)}</th>" for word in ("run", "seed", *keys))
    body = ""
    for run in runs:
        cells = [run.folder.name, *(str(run.settings.get(key)) for key in ("seed", *keys))]
        body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"
