"""The command line around Hydra: one sentence for a user's mistake, an exit code, ``--help``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser

from experiments.command_line import job, results
from experiments.command_line.launching import found_by_workers
from experiments.configuration import config as schema
from experiments.configuration import options
from experiments.configuration.mistakes import before_any_run, names_no_key, of_command_line
from experiments.configuration.scalars import check_overrides
from experiments.configuration.sweeps import check_sweep
from experiments.errors import UserError
from experiments.run.launched import Place, place
from experiments.run.sweep import log_to_console

REFUSED = {
    "hydra.run.dir": "a run has a folder of its own, named by what it computes, under machine.runs",
    "hydra.sweep.subdir": "a run has a folder of its own, named by what it computes, under machine.runs",
    "hydra.job.chdir": "paths are relative to the folder of the call, and each run has a folder under machine.runs",
    "hydra.output_subdir": "a run's folder has its configuration, config.yaml",
}
"""Keys of Hydra that would have no effect, or a wrong one, and why."""


def main() -> int:
    """Do what the command line says; the exit code.

    0: done; 1: a run of a sweep or a figure failed, or all runs of the command diverged; 2: a user's mistake, said in
    one sentence on stderr; 130: interrupted. What a run raises besides is a bug and keeps its traceback. After a sweep
    that is interrupted or breaks off, the table of its runs so far is printed and written.
    """
    here = _prepare()
    overrides: list[str] = []
    try:
        flags = _flags()
        overrides = flags.overrides
        options.use_folder(flags.config_dir)
        if flags.help:
            print(options.usage(), end="")
            return 0
        _refuse(flags.overrides)
        check_overrides(flags.overrides)
        if flags.multirun:
            check_sweep(flags.overrides)
        if here.size > 1:
            _refuse_several(flags)
        hydra.main(version_base="1.3", config_path=str(options.CONF), config_name="config")(job.job)()
        return _close()
    except KeyboardInterrupt:
        _close(interrupted=True)
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except Exception as error:
        mistake = _mistake(error, overrides)
        if mistake is None:
            raise
        if here.local == 0:  # once per machine
            print(f"error: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 2


def _prepare() -> Place:
    """Set the environment of Hydra and of its launchers, and what earlier calls left; this process's place."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print
    found_by_workers()
    here = place()
    log_to_console()
    if here.size > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # that all parameters are used is no warning
    if not here.first:
        logging.getLogger("experiments").setLevel(logging.CRITICAL)
    schema.register()
    results.pool = results.collection = None
    job.mistakes.clear()
    job.started = job.diverged = job.incomplete = False
    return here


def _mistake(error: Exception, overrides: list[str]) -> UserError | None:
    """The user's mistake that an exception of the command tells of; ``None`` for a bug."""
    mistake = _kept_mistake()
    if mistake is None and not names_no_key(error):
        mistake = of_command_line(error)
    if mistake is None and not job.started:
        mistake = before_any_run(error, overrides)
    return mistake


def _close(interrupted: bool = False) -> int:
    """The exit code of a command that ended: 0, or 1 if a run of a sweep or a figure failed, or all diverged.

    Raises:
        UserError: the mistake of the one run, or a table that cannot be written.
    """
    if job.mistakes:
        raise job.mistakes.pop()
    collection = results.collection
    if collection is None:
        return int(job.diverged or job.incomplete)
    collection.close(interrupted)
    if collection.mistake is not None:
        mistake, collection.mistake = collection.mistake, None
        raise mistake
    return int(collection.failed > 0 or collection.diverged or job.incomplete)


def _kept_mistake() -> UserError | None:
    """Close what is open after an error; a mistake that was kept until then, as a folder that cannot be written."""
    try:
        _close(interrupted=True)
    except UserError as mistake:
        return mistake
    return None


def _refuse(overrides: list[str]) -> None:
    """Refuse the keys of Hydra that would not do what they say.

    Raises:
        UserError: one of them is on the command line.
    """
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key in REFUSED:
            raise UserError(f"{key} is not for this command: {REFUSED[key]}")


def _refuse_several(flags: argparse.Namespace) -> None:
    """Refuse what several processes do not do together.

    Raises:
        UserError: a sweep or a figure.
    """
    figure = any(each.lstrip("+").startswith("figure=") and not each.endswith("=null") for each in flags.overrides)
    if flags.multirun or figure:
        raise UserError(
            f"torchrun trains one run in several processes; make a {'figure' if figure else 'sweep'} without it, and "
            "its runs side by side with machine.jobs=2"
        )


def _flags() -> argparse.Namespace:
    """The flags as Hydra will read them; a wrong one is a sentence and not argparse's page of usage.

    Hydra takes flags before the overrides; here they may stand anywhere, and ``sys.argv`` is put into Hydra's order.

    Raises:
        UserError: an unknown flag, a wrong value of one, or a flag that needs another one.
    """

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; python run.py --help says what there is")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    flags = parser.parse_intermixed_args()
    words, left = [], list(flags.overrides)
    for word in reversed(sys.argv[1:]):
        if left and word == left[-1]:
            left.pop()
        else:
            words.append(word)
    sys.argv[1:] = [*reversed(words), *flags.overrides]
    if flags.resolve and not (flags.cfg or flags.help):
        refuse("--resolve goes with --cfg, as in --cfg job --resolve")
    shells = {f"{verb}={shell}" for verb in ("install", "uninstall", "query") for shell in ("bash", "fish", "zsh")}
    if flags.shell_completion and not shells & set(flags.overrides):
        refuse("--shell-completion takes install=bash, install=zsh or install=fish")
    if flags.experimental_rerun is not None:
        refuse("--experimental-rerun is not for this command: the command line that made a run makes it again")
    return flags
