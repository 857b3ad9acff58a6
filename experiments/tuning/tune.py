"""Tune both sides of a data set, model and optimizer in turn, with as many trials for each."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments import files
from experiments.configuration.validate import resolve
from experiments.errors import UserError
from experiments.figures.build import COMMITTED_SCALE
from experiments.figures.runs import expand
from experiments.run.environment import commit
from experiments.run.runs import load_table
from experiments.tuning import tables
from experiments.tuning.arms import NONE, arm
from experiments.tuning.plan import SECONDS, Tuning, check
from experiments.tuning.study import Study
from experiments.tuning.trials import COMMON, kept, make, measure, score

log = logging.getLogger(__name__)


def tune(tuning: Tuning) -> Path:
    """Make the trials that are missing, side by side in turn, then write their table and the winners.

    Trials are recorded runs. After an interruption, the same call goes on with the trial that was under way. Hydra must
    have been initialised with the configuration directory.

    Returns:
        the table of all trials, ``<machine.results>/tuning/<data>-<model>-<optimizer>.csv``.

    Raises:
        UserError: see :func:`check`, a run that fails, another process that tunes the same pair, or a file that cannot
            be read or written.
    """
    check(tuning)
    sides = [NONE, *tuning.teleports]
    first = {**COMMON, **tuning.pair, "teleport": sides, "seed": tuning.seeds[0]}
    configs = [resolve(run.config) for run in expand([first], tuning.overrides)]
    machine, scale = configs[0].machine, configs[0].scale
    name = "-".join(tuning.pair.values()) + ("" if scale == COMMITTED_SCALE else f"-{scale}")
    storage = Path(machine.runs) / "tuning" / f"{name}.db"
    storage.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(storage.with_suffix(".lock"), timeout=0):
            return _tune(tuning, configs, storage, Path(machine.results) / "tuning" / f"{name}.csv")
    except Timeout:
        raise UserError(f"another process is tuning {name}; wait for it") from None


def _tune(tuning: Tuning, configs: list[Any], storage: Path, path: Path) -> Path:
    """The tuning of :func:`tune`, with the resolved configuration of each side's own setting."""
    (reference,) = make(tuning.pair | {"teleport": NONE}, {}, [tuning.seeds[0]], list(tuning.overrides))
    curve = load_table(reference.folder, "curve")
    epoch = round(float(curve["step"].iloc[-1] / curve["epoch"].iloc[-1]))
    hardware = measure(reference, tuning.at).hardware
    terms = {"seeds": list(tuning.seeds), "at": tuning.at, "sampler": tuning.sampler, "scale": configs[0].scale}
    terms |= {"hardware": hardware} if tuning.at == SECONDS else {}
    studies = [
        Study(storage, arm(side, config, epoch), tuning.sampler, terms)
        for side, config in zip([NONE, *tuning.teleports], configs, strict=True)
    ]
    trials = max(tuning.trials, *(len(study.finished()) for study in studies))  # as many for each
    while (study := min(studies, key=lambda one: len(one.finished()))) and len(study.finished()) < trials:
        _trial(tuning, study, trials)  # in turn, so that a stop leaves equal numbers
        files.write_text(path, tables.trials(tuning.pair, [one for one in studies if one.finished()], configs[0].scale))
    files.write_text(path, tables.trials(tuning.pair, studies, configs[0].scale))
    how = {"trials": trials, **terms, "commit": commit()}
    tables.write_winners(tuning.into, tuning.pair, studies, how)
    return path


def _trial(tuning: Tuning, study: Study, trials: int) -> None:
    """Make one trial of a side, and tell its study."""
    trial = study.next()
    settings = study.arm.settings(trial.params)
    words = " ".join(f"{key}={value:g}" for key, value in settings.items())
    done = len(study.finished())
    log.info("\ntrial %d of %d, teleport=%s: %s", done + 1, trials, study.arm.teleport, words)
    pair = tuning.pair | {"teleport": study.arm.teleport}
    measured = [measure(run, tuning.at) for run in make(pair, settings, list(tuning.seeds), list(tuning.overrides))]
    study.tell(trial, score(measured), kept(measured))
    log.info("loss %.4g, best %.4g", score(measured), study.best().value)
