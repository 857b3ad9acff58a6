"""Draw the picture of the README: a teleport along a level set, and gradient descent with and without it.

usage: python scripts/draw_idea.py [--write FILE]

The loss is the ellipse ``x^2 + 9 y^2`` from the start of Zhao et al. 2022. ``teleport.Orbit`` turns the point along its
level set, by gradient ascent of the logarithm of the gradient norm over the angle. Everything drawn is computed here.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments import files
from experiments.functions import FUNCTIONS
from teleport import Orbit, TeleportReport

ROOT = Path(__file__).resolve().parent.parent
ELLIPSE = FUNCTIONS["ellipse"]
START = (8.0, -2.0)
RATE, STEPS = 0.03, 10


class Point(nn.Module):
    """The model: two parameters, ``x`` and ``y``."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(START[0], dtype=torch.float64))
        self.y = nn.Parameter(torch.tensor(START[1], dtype=torch.float64))

    def forward(self) -> Tensor:
        """The loss at the point."""
        return ELLIPSE(self.x, self.y)

    @property
    def place(self) -> tuple[float, float]:
        """``(x, y)`` as numbers."""
        return self.x.item(), self.y.item()


@dataclass
class Drawing:
    """What is drawn: paths of ``(x, y)``, one point per descent step, and the angle by which the teleport turned."""

    without: list[tuple[float, float]]
    teleported: list[tuple[float, float]]
    angle: float
    report: TeleportReport


def turn(angle: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The group action: the point turned by an angle along its level set; angle 0 moves nothing."""
    x, y = ELLIPSE.rotated(weights["x"], weights["y"], torch.cos(angle), torch.sin(angle))
    return {"x": x, "y": y}


def descend(model: Point) -> list[tuple[float, float]]:
    """The points of gradient descent from where the model is, the first one included."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    path = [model.place]
    for _ in range(STEPS):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
        path.append(model.place)
    return path


def compute() -> Drawing:
    """Descent from the start, and a teleport followed by descent."""
    without = descend(Point())
    model = Point()
    report = Orbit(turn, lr=1.0, steps=30, relative_cap=None)(model, [None], lambda model, batch: model())
    before, after = (math.atan2(v, u) for u, v in (ELLIPSE.squared(*START), ELLIPSE.squared(*model.place)))
    return Drawing(without, descend(model), math.remainder(after - before, math.tau), report)


def draw(drawing: Drawing) -> bytes:
    """The picture as PNG: left the paths on the level sets, right the loss per step."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    plane, losses = figure.subplots(1, 2, width_ratios=[2, 1])
    x, y = np.meshgrid(np.linspace(-11, 11, 441), np.linspace(-4.2, 4.2, 241))
    start = ELLIPSE(*START)
    plane.contour(x, y, ELLIPSE(x, y), levels=[1, 9, 25, 49, 75, 130], colors="0.85", linewidths=0.8)
    plane.contour(x, y, ELLIPSE(x, y), levels=[start], colors="0.55", linewidths=1.2)

    angles = np.linspace(0, drawing.angle, 100)
    jump = ELLIPSE.rotated(*START, np.cos(angles), np.sin(angles))
    for axes, path, colour, label in (
        (plane, drawing.without, "C0", "gradient descent"),
        (plane, drawing.teleported, "C3", "the same after a teleport"),
    ):
        axes.plot(*zip(*path, strict=True), "o-", color=colour, markersize=3, linewidth=1.2, label=label)
        losses.semilogy([ELLIPSE(*point) for point in path], "o-", color=colour, markersize=3, linewidth=1.2)
    plane.plot(*jump, "--", color="C3", linewidth=2)
    middle = len(angles) // 2
    plane.annotate(
        "", (jump[0][middle], jump[1][middle]), (jump[0][middle - 3], jump[1][middle - 3]),
        arrowprops={"arrowstyle": "-|>", "color": "C3", "mutation_scale": 16},
    )  # fmt: skip
    plane.plot(*START, "ko", markersize=6)
    plane.annotate("start", START, (6, -10), textcoords="offset points")
    plane.annotate("level set of the start", (-8.6, -1.53), (-10.8, -3.9), color="0.4", fontsize=9)
    plane.annotate("teleport", (jump[0][middle], jump[1][middle]), (4, -14), textcoords="offset points", color="C3")
    plane.plot(*ELLIPSE.minimum, "k+", markersize=8)
    plane.set(xlabel="x", ylabel="y", xticks=[-10, -5, 0, 5, 10])
    plane.legend(frameon=True, loc="upper left", fontsize=8)
    losses.set(xlabel="step", ylabel="loss", xticks=[0, 5, 10])

    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110, metadata={"Software": None})
    return image.getvalue()


def main(arguments: list[str]) -> int:
    """Compute, print and draw; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "idea.png", help="where the picture goes")
    path = parser.parse_args(arguments).write
    drawing = compute()
    files.write_bytes(path, draw(drawing))
    batch = drawing.report.batches[0]
    print(f"teleport: loss {batch.loss_before:.6g} -> {batch.loss_after:.6g}", end=", ")
    print(f"gradient norm {batch.gradient_norm_before:.6g} -> {batch.gradient_norm_after:.6g}")
    ends = (ELLIPSE(*path[-1]) for path in (drawing.without, drawing.teleported))
    print("loss after {} steps: {:.6g} without, {:.6g} with the teleport".format(STEPS, *ends))
    print(f"picture: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
