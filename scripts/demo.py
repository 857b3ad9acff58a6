"""Train on the embedded digits with and without teleportation, draw both curves, and print what was measured.

usage: python scripts/demo.py [KEY=VALUE ...]

The overrides are those of ``run.py`` and apply to both runs.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import textwrap
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
SETTING = ["data=digits", "model=mlp", "optimizer=sgd", "scale=quick", "machine.threads=1"]
SIDES = {"without": "teleport=none", "with teleports": "teleport=nullspace"}


@dataclass
class Side:
    """One of the two runs, read back from its folder."""

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


def compositions(overrides: list[str]) -> dict[str, DictConfig]:
    """The configuration of each side.

    Raises:
        UserError: an override that does not compose.
    """
    config.register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return {side: compose("config", [*SETTING, choice, *overrides]) for side, choice in SIDES.items()}
    except Exception as error:
        raise of_command_line(error) or error from None


def draw(path: Path, sides: dict[str, Side], title: str) -> None:
    """Training loss of both sides over epochs and over seconds; each teleport is a dotted line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    by_epoch, by_second = figure.subplots(1, 2, sharey=True)
    for axes, unit in ((by_epoch, "epoch"), (by_second, "seconds")):
        for side, run in sides.items():
            axes.plot(run.curve[unit], run.curve["train_loss"], marker="o", markersize=3, label=side)
        axes.set_xlabel(unit)
    for epoch in sides["with teleports"].teleports["epoch"].unique():
        by_epoch.axvline(epoch, color="0.8", linestyle=":", linewidth=1, zorder=0)
    by_epoch.set_ylabel("training loss")
    by_second.set_xlabel("seconds of training and teleports")
    by_epoch.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    files.write_bytes(path, image.getvalue())


def tell(sides: dict[str, Side]) -> str:
    """The measured numbers as a table and in sentences."""
    rows = [
        ("", "without", "with teleports"),
        ("training loss, at the start", *(f"{run.curve['train_loss'].iloc[0]:.4f}" for run in sides.values())),
        ("training loss, at the end", *(f"{run.summary['train_loss']:.4f}" for run in sides.values())),
        ("test loss, at the end", *(f"{run.summary['test_loss']:.4f}" for run in sides.values())),
        ("test accuracy, at the end", *(f"{run.summary['test_metric']:.4f}" for run in sides.values())),
        ("seconds of training", *(f"{run.summary['training_seconds']:.2f}" for run in sides.values())),
        ("seconds of teleports", *(f"{run.summary['teleport_seconds']:.2f}" for run in sides.values())),
    ]
    table = "\n".join(f"  {name:<28} {one:>9}  {other:>14}" for name, one, other in rows)
    plain, teleported = sides.values()
    words = [_teleports(teleported), *_comparison(plain, teleported)]
    return "\n\n".join([table, *(textwrap.fill(paragraph, width=100) for paragraph in words)])


def _teleports(run: Side) -> str:
    """What the teleports changed on their own batches, each before and after its own steps."""
    batches = run.teleports
    if batches.empty:
        return "There was no teleport in this run."
    text = f"{run.summary['events']} teleport(s), each on {batches['batch'].nunique()} batches."
    if run.summary["no_op"]:
        return f"{text} They moved nothing."
    first = batches.groupby("event").first()  # the first batch of an event starts at the parameters of the training
    before, after = first["gradient_norm_before"].mean(), first["gradient_norm_after"].mean()
    change = (batches["loss_after"] - batches["loss_before"]).abs().max()
    return (
        f"{text} On the first batch of an event, the gradient norm went from {before:.3g} to {after:.3g} (mean). "
        f"The steps on a batch changed its own loss by {change:.1g} at most."
    )


def _comparison(plain: Side, teleported: Side) -> list[str]:
    """The training losses after the same epochs, and after the same seconds."""
    ends = plain.summary["train_loss"], teleported.summary["train_loss"]
    seconds = min(plain.summary["seconds"], teleported.summary["seconds"])
    by_then = [run.curve.loc[run.curve["seconds"] <= seconds, "train_loss"].iloc[-1] for run in (plain, teleported)]
    return [
        f"After the same {plain.summary['epoch']:g} epoch(s), {_verdict(*ends)}.",
        f"After the same {seconds:.1f} seconds, at the last evaluation by then, {_verdict(*by_then)}.",
        "This is one seed on a small data set, both sides at one learning rate; the README says how to measure more.",
    ]


def _verdict(plain: float, teleported: float) -> str:
    """Which of two training losses is lower."""
    how = "lower" if teleported < plain else "not lower"
    return f"the training loss is {how} with teleports, {teleported:.4f} against {plain:.4f}"


def main(arguments: list[str]) -> int:
    """Make both runs if they are missing, draw and print; the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of both runs, as for run.py")
    overrides = parser.parse_args(arguments).overrides
    log_to_console()
    try:
        composed = compositions(overrides)
        sides = {side: Side.read(make_run(composition)) for side, composition in composed.items()}
        picture = Path(composed["without"].machine.runs) / "demo.png"
        draw(picture, sides, "{data.name}, {model.name}, {optimizer.name}, seed {seed}".format(**composed["without"]))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    print(f"\n{tell(sides)}\n")
    print(f"picture: {picture.resolve()}")
    for side, one in sides.items():
        print(f"run {side}: {one.folder.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
