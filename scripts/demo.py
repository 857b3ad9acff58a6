"""Train on the embedded digits with and without teleportation beside two controls, draw the curves, and say what won.

usage: python scripts/demo.py [KEY=VALUE ...]

The overrides are those of ``run.py`` and apply to all four runs: no teleports, gentle teleports, random moves of a
similar length, and no teleports at twice the learning rate.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments import files
from experiments.configuration import config
from experiments.configuration.mistakes import of_command_line
from experiments.configuration.options import CONF
from experiments.errors import UserError
from experiments.run.make_run import make_run
from experiments.run.sweep import log_to_console

if TYPE_CHECKING:
    import pandas as pd

# One thread: the network is small, and threads that wait for each other stall on a busy machine.
SETTING = [
    *("data=digits", "data.train_samples=1408", "model=mlp", "model.widths=[512,512]"),  # 44 whole batches
    *("optimizer=sgd", "optimizer.lr=0.1", "scale=quick", "machine.threads=1"),
]
SIDES = {
    "no teleports": "teleport=none",
    "teleports": "teleport=gentle",
    "random moves": "teleport=random_gentle",
    "twice the rate": "teleport=none",
}


@dataclass
class Side:
    """One of the runs, read back from its folder."""

    folder: Path
    summary: dict[str, Any]
    curve: pd.DataFrame
    teleports: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> Side:
        """The run in ``folder``."""
        from experiments.run.runs import load_table

        summary = json.loads((folder / "summary.json").read_text())
        return cls(folder, summary, load_table(folder, "curve"), load_table(folder, "teleports"))

    def by(self, seconds: float) -> float | None:
        """The training loss at the last evaluation within ``seconds``; ``None`` if it is not finite."""
        loss = float(self.curve.loc[self.curve["seconds"] <= seconds, "train_loss"].iloc[-1])
        return loss if math.isfinite(loss) else None


def compositions(overrides: list[str]) -> dict[str, DictConfig]:
    """The configuration of each side.

    Raises:
        UserError: an override that does not compose.
    """
    config.register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            sides = {side: compose("config", [*SETTING, choice, *overrides]) for side, choice in SIDES.items()}
            rate = 2 * sides["no teleports"].optimizer.lr
            raised = [*SETTING, SIDES["twice the rate"], *overrides, f"optimizer.lr={rate}"]
            return sides | {"twice the rate": compose("config", raised)}
    except Exception as error:
        raise of_command_line(error) or error from None


def draw(path: Path, sides: dict[str, Side], title: str) -> None:
    """Training loss of all sides over epochs and over seconds; each teleport is a dotted line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    by_epoch, by_second = figure.subplots(1, 2, sharey=True)
    for axes, unit in ((by_epoch, "epoch"), (by_second, "seconds")):
        for side, run in sides.items():
            axes.plot(run.curve[unit], run.curve["train_loss"], marker="o", markersize=3, label=side)
        axes.set_xlabel(unit)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    for epoch in sides["teleports"].teleports["epoch"].unique():
        by_epoch.axvline(epoch, color="0.8", linestyle=":", linewidth=1, zorder=0)
    by_epoch.set_ylabel("training loss")
    by_second.set_xlabel("seconds of training and teleports")
    by_epoch.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    files.write_bytes(path, image.getvalue())


def tell(sides: dict[str, Side]) -> str:
    """What was compared, the losses of each side, and what won: ten lines with the picture's."""
    seconds = min(run.summary["seconds"] for run in sides.values())
    lines = [f"{'':<16}{'training loss':>14}{f'after {seconds:.1f} s':>14}{'test loss':>11}{'seconds':>9}{'events':>8}"]
    for side, run in sides.items():
        losses = f"{_number(run.summary['train_loss']):>14}{_number(run.by(seconds)):>14}"
        rest = f"{_number(run.summary['test_loss']):>11}{run.summary['seconds']:>9.1f}{run.summary['events']:>8}"
        lines.append(f"{side:<16}{losses}{rest}")
    epochs = sides["no teleports"].summary["epoch"]
    return "\n".join([*lines, _teleports(sides["teleports"]), *_comparison(sides, epochs, seconds)])


def _number(loss: float | None) -> str:
    return "diverged" if loss is None else f"{loss:.4f}"


def _teleports(run: Side) -> str:
    """What the teleports changed on their own batches."""
    batches = run.teleports
    if batches.empty:
        return "There was no teleport in this run."
    if run.summary["no_op"]:
        return f"{run.summary['events']} teleports moved nothing."
    growth = (batches["gradient_norm_after"] / batches["gradient_norm_before"]).mean()
    change = (batches["loss_after"] - batches["loss_before"]).abs().max()
    return (
        f"{run.summary['events']} teleports raised the gradient norm on their batch {growth:.2f} times and changed its "
        f"loss by {change:.0e}."
    )


def _comparison(sides: dict[str, Side], epochs: float, seconds: float) -> list[str]:
    """Which side has the lowest training loss after the same epochs, and after the same seconds."""
    ends = {side: run.summary["train_loss"] for side, run in sides.items() if run.summary["train_loss"] is not None}
    by_then = {side: loss for side, run in sides.items() if (loss := run.by(seconds)) is not None}
    return [
        f"Lowest training loss after {epochs:g} epochs: {min(ends, key=ends.__getitem__)}; "
        f"after {seconds:.1f} seconds: {min(by_then, key=by_then.__getitem__)}. One seed, one small data set."
    ]


def main(arguments: list[str]) -> int:
    """Make the runs if they are missing, draw and print; the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of all runs, as for run.py")
    overrides = parser.parse_args(arguments).overrides
    log_to_console()
    try:
        composed = compositions(overrides)
        sides = {side: Side.read(make_run(composition)) for side, composition in composed.items()}
        picture = Path(composed["no teleports"].machine.runs) / "demo.png"
        draw(
            picture,
            sides,
            "{data.name}, {model.name}, {optimizer.name}, seed {seed}".format(**composed["no teleports"]),
        )
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    print(f"\n{tell(sides)}")
    print(f"picture: {picture.resolve()}")
    print(f"runs: {picture.parent.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
