"""Tune a data set, model and optimizer with and without teleports, with equal budgets, for ``rates=tuned``.

usage: python scripts/tune.py DATA MODEL OPTIMIZER [--teleport nullspace ...] [--trials N] [KEY=VALUE ...]

The side without teleports chooses the learning rate and its warm-up, a side with them the rate, the step and the cap
(or the growth of the gradient norm). Every trial is an ordinary recorded run per seed; the same command goes on where
it was stopped. Trials go to results/tuning/, winners to conf/rates/tuned.yaml.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.configuration import config, options
from experiments.configuration.scalars import check_overrides
from experiments.errors import UserError
from experiments.run.sweep import log_to_console
from experiments.tuning.plan import Tuning, check


def main(arguments: list[str]) -> int:
    """Tune one pair; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    for name in ("data", "model", "optimizer"):
        parser.add_argument(name, help=f"an option of {name}")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="machine.*, data.root and scale")
    parser.add_argument("--teleport", action="append", help="an option to tune; may be given several times")
    parser.add_argument("--trials", type=int, default=20, help="of each side (20)")
    parser.add_argument("--seeds", type=seeds, default=[100, 101], help="of each trial (100,101)")
    parser.add_argument("--sampler", default="tpe", help="tpe or random")
    parser.add_argument("--at", default="seconds", help="where losses count: at equal seconds, or at the end")
    parser.add_argument("--into", type=Path, help="the table of winners (conf/rates/tuned.yaml)")
    given = parser.parse_intermixed_args(arguments)
    from hydra import initialize_config_dir

    log_to_console()
    config.register()
    try:
        check_overrides(given.overrides)
        into = given.into or options.CONF / "rates" / "tuned.yaml"
        if given.into is None and any(word.startswith("scale=") and word != "scale=quick" for word in given.overrides):
            raise UserError("conf/rates/tuned.yaml holds what was tuned at quick scale; name another table with --into")
        tuning = Tuning(
            *(given.data, given.model, given.optimizer, into),
            teleports=given.teleport or ["nullspace"],
            **{name: getattr(given, name) for name in ("trials", "seeds", "sampler", "at", "overrides")},
        )
        check(tuning)
        from experiments.tuning.tune import tune  # loads torch

        with initialize_config_dir(str(options.CONF), version_base="1.3"):
            print(f"{tune(tuning)}\n{into}")
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with the trial that was under way", file=sys.stderr)
        return 130
    return 0


def seeds(text: str) -> list[int]:
    """The seeds of a list with commas."""
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
