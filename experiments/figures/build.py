"""Build a figure: make its missing runs, measure them, write one table, its provenance and the picture."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments import files
from experiments.configuration.config import RESULTS_VERSION
from experiments.errors import UserError
from experiments.figures import page, provenance, table
from experiments.figures.choice import chosen
from experiments.figures.composition import compose_config
from experiments.figures.redraw import COMMITTED_SCALE, draw, verdict_of
from experiments.figures.runs import FigureRun, Launch, execute, expand, missing_in_words, override_key, reason_of
from experiments.figures.subjects import DRAWINGS, MEASURES
from experiments.run.environment import commit

log = logging.getLogger(__name__)


def make_figure(config: DictConfig, launch: Launch | None = None) -> Path:
    """Make the figure of ``run.py figure=<paper>/<name>`` and return the folder of its table and picture.

    Raises:
        UserError: as :func:`build`, or Hydra is not initialised in this process.
    """
    if not HydraConfig.initialized():
        raise UserError(
            "a sweep over figures makes them one at a time; leave out machine.jobs, or name one figure per command"
        )
    return build(list(HydraConfig.get().overrides.task), launch)


def build(overrides: list[str], launch: Launch | None = None) -> Path:
    """Make the figure of a command line with ``figure=<paper>/<name>``.

    The other overrides of the command line apply to each run of the figure. A failed run is a row with its reason.
    Files are written after everything is computed. Hydra must have been initialised with the configuration directory.

    Args:
        overrides: of the command line, without those of Hydra itself.
        launch: makes the missing runs; ``None`` for this process and those of ``machine.jobs``.

    Returns:
        the folder of the figure's table and picture.

    Raises:
        UserError: a mistake in the figure's file or on the command line, no run with a result, or a folder that cannot
            be written.
    """
    config = compose_config(overrides)
    name, figure = str(config.hydra.runtime.choices["figure"]), config.figure
    measure, options = chosen("measure", figure.measure, MEASURES)
    chosen("drawing", figure.draw, DRAWINGS)

    runs = expand(OmegaConf.to_container(figure.runs, resolve=True), overrides)  # type: ignore[arg-type]
    failed = execute(runs, launch)
    cells = [(run.labels, _rows(run, measure, options)) for run in runs] or [({}, measure(None, **options))]
    if runs and all(run.reason for run in runs):
        raise UserError(f"no run of the figure '{name}' has a result, the first because: {runs[0].reason}")
    text = table.to_csv(table.gather(cells, config.scale, RESULTS_VERSION))
    folder = folder_of(name, config.scale, overrides, Path(config.machine.results))
    # Drawn from the text of the table, as in redraw.
    picture = draw(figure, table.parse(text, name), verdict_of(folder, name))

    origin = provenance.record(name, overrides, runs, commit())
    if unclean := provenance.uncommitted(origin):
        log.info("note: %s; commit the changes and make it again before it is committed to results/", unclean)
    short = name.rpartition("/")[2]
    files.clean_shared(folder)
    files.write_text(folder / f"{short}.csv", text)
    provenance.write(folder, origin, text)
    for path in page.save(picture, folder, short):
        log.info("%s", path)
    if failed:
        log.info("%s", missing_in_words(failed, len(runs)))
    return folder


def folder_of(name: str, scale: str, overrides: list[str], results: Path) -> Path:
    """The folder of a figure: ``<results>/<paper>/<name>`` at the committed scale.

    Another scale goes to ``<name>-<scale>``. A figure that the command line changes further goes to
    ``<name>-<scale>-<hash of these overrides>``.
    """
    others = [o for o in provenance.significant(overrides) if override_key(o) not in ("figure", "scale")]
    parts = [name]
    if scale != COMMITTED_SCALE or others:
        parts.append(scale)
    if others:
        parts.append(hashlib.sha256("\n".join(sorted(others)).encode()).hexdigest()[:6])
    return results / "-".join(parts)


def _rows(run: FigureRun, measure: Callable[..., pd.DataFrame], options: dict[str, Any]) -> pd.DataFrame:
    """The measured rows of a run with its hardware and note, or one row with the reason if measuring fails."""
    if run.folder is not None:
        try:
            rows = measure(run, **options)
            return rows.assign(
                run=run.folder.name,
                hardware=provenance.hardware_of(run.folder),
                note=provenance.note_of(run.folder),
            )
        except UserError as error:
            run.reason = reason_of(error)
        except Exception as error:  # a bug in one cell is logged with its traceback and must not lose the others
            log.exception("the run in %s cannot be measured", run.folder)
            run.reason = reason_of(error)
    for key, place in (("data.root", run.config.data.root), ("machine.runs", run.config.machine.runs)):
        # Committed tables must not name folders of this machine; a launcher names even a relative one in full.
        for name in (str(Path(place).absolute()), *([place] if Path(place).is_absolute() else [])):
            run.reason = run.reason.replace(name, f"<{key}>")
    return pd.DataFrame({"reason": [run.reason]})
