"""The symmetries of a hundred models: their dimensions, what an element moves in the outputs, what pins the rest.

A row has the dimension of each group (``teleport.find_symmetries`` with norm weights folded), the largest change of the
outputs on two other batches, relative to the largest output, after a random element of all groups in double and single
precision, and the processor's seconds of the search against those of one evaluation. Weights are random, those of norms
and layer scales uniform. A model whose package is not installed has a row that says so.
"""

from __future__ import annotations

import copy
import gc
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.benchmarks.aims import Aim
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, Timed, machine
from experiments.benchmarks.symmetric_models import SymmetricModel, models
from experiments.run.environment import environment
from teleport import ChangeOfBasis, Symmetries, UnsupportedModel, find_symmetries

KEY = "model"
"""The column that names a row: rows that were measured before an interruption are kept."""

METHOD = "random element"
GROUPS = {
    "rotations": ("orthogonal",),
    "mean_keeping": ("mean-keeping orthogonal",),
    "rotary": ("plane rotation", "scaled plane rotation"),
    "matrices": ("general linear",),
}
COLUMNS = [
    *("method", "model", "state", "parameters", "dimension", "scalings", *GROUPS, "log10_permutations", "folded"),
    *("difference_double", "difference_single", "value_reads", "pins", *TIMES, "evaluation_seconds", "ratio"),
    *("commit", *MACHINE),
]
"""``scalings`` and the groups are dimensions; ``seconds`` are those of the search, ``ratio`` is these less one over
``evaluation_seconds``, at most 2 is aimed at; ``pins`` are the reasons that reduce the groups of most parameters."""

SMOKE = ["Llama", "torchvision squeezenet1_1"]

ROUNDS = 3
REASONS = 3


def _measured(table: pd.DataFrame) -> float:
    """How many models have a row; nan without any."""
    rows = table[table["method"] == METHOD]
    return float((rows["state"] == "measured").sum()) if len(rows) else math.nan


AIMS = [
    Aim(
        "outputs after a random element, double precision",
        "<=",
        1e-5,
        lambda t: float(t.difference_double.max()),
        "of 1",
    ),
    Aim("models with a table row", ">=", 100, _measured, "models"),
]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per model that is not done."""
    for each in models(settings.smoke):
        if each.name not in settings.done:
            try:
                cells = _row(each)
            except (UnsupportedModel, RuntimeError, ValueError, TypeError, AttributeError) as error:
                cells = {"state": f"failed: {type(error).__name__}: {error}".partition("\n")[0]}
            yield {"method": METHOD, "model": each.name, **cells, **_origin(settings)}
            gc.collect()


def line(row: Row) -> str:
    """The model, its dimension, how far outputs moved and the cost."""
    if row["state"] != "measured":
        return f"{row['model']:<36} {row['method']}: {row['state']}"
    return (
        f"{row['model']:<36} dimension {row['dimension']:>8}  {row['method']} {row['difference_double']:.1e} "
        f"{row['difference_single']:.1e}  {row['seconds']:.2f} s, evaluation {row['evaluation_seconds']:.3f} s"
    )


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """How many models, the largest changes, and those that cost most."""
    done = table[table.state == "measured"]
    counts = pd.DataFrame(
        {
            "models": [len(done)],
            "not measured": [len(table) - len(done)],
            "largest difference, double": [done.difference_double.max()],
            "largest difference, single": [done.difference_single.max()],
            "within two evaluations and a second": [int((done.ratio <= 2).sum())],
        }
    )
    costly = done.sort_values("ratio", ascending=False)[["model", "seconds", "evaluation_seconds", "ratio"]]
    return {"models": counts, "largest costs": costly.head(5).reset_index(drop=True)}


def _row(each: SymmetricModel) -> Row:
    """The cells of a model."""
    if not each.installed:
        return {"state": f"{each.source} is not installed"}
    torch.manual_seed(0)
    model = _random(each.make().eval())
    batch, others = each.inputs(0), [each.inputs(1), each.inputs(2)]
    forward = _cast(each.forward)
    with torch.no_grad():
        evaluation = _seconds(lambda: each.forward(model, batch))
    found: list[Symmetries] = []
    search = _seconds(lambda: found.append(find_symmetries(model, batch, each.forward, fold_norms=True)), 1)
    double = copy.deepcopy(model).double()
    moved = ChangeOfBasis(group="all", range=0.5, fold_norms=True, guard="none")
    before = [_outputs(forward, net, others) for net in (double, model)]
    report = moved(double, [batch], forward=forward)
    report.change.apply(model)
    after = [_outputs(forward, net, others) for net in (double, model)]
    return {
        "state": "measured",
        "parameters": sum(one.numel() for one in model.parameters()),
        **_sizes(found[0]),
        "difference_double": _change(before[0], after[0]),
        "difference_single": _change(before[1], after[1]),
        "value_reads": len(found[0].value_reads),
        "pins": "; ".join(pins(found[0], model)),
        **Timed([search], None).columns(),
        "evaluation_seconds": evaluation,
        "ratio": (search - 1) / evaluation,
    }


def pins(found: Symmetries, model: nn.Module) -> list[str]:
    """The reasons that reduce the groups of most parameters, most first."""
    sizes = {name: each.numel() for name, each in model.named_parameters()}
    counts: Counter[str] = Counter()
    for vertex in found.vertices:
        if vertex.reasons:
            counts[vertex.reasons[-1]] += sum(sizes.get(name, 0) for name in vertex.acts_on)
    for name, reason in found.pinned.items():
        counts[reason.removeprefix("but for factors: ").partition(";")[0]] += sizes[name]
    return [reason for reason, _ in counts.most_common(REASONS)]


def _sizes(found: Symmetries) -> Row:
    dimensions = {
        column: sum(each.dimension for each in found.vertices if each.group in groups)
        for column, groups in GROUPS.items()
    }
    return {
        "dimension": found.dimension,
        "scalings": found.free_scalings,
        **dimensions,
        "log10_permutations": found.log10_permutations,
        "folded": len(found.folded),
    }


def _origin(settings: Settings) -> Row:
    return {"commit": environment(settings.device)["commit"], **machine(settings.device)}


def _random(model: nn.Module) -> nn.Module:
    """With weights of norms, layer scales and biases that are no constants, and none that are zero.

    Vision transformers start with a head of zeros, behind which no change of the outputs would be seen.
    """
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def _cast(forward: Callable[[nn.Module, Any], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    """With inputs of the model's precision."""

    def cast(model: nn.Module, inputs: Tensor) -> Tensor:
        kind = next(model.parameters()).dtype
        return forward(model, inputs.to(kind) if inputs.is_floating_point() else inputs)

    return cast


def _seconds(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """The processor's, the median of some rounds."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


@torch.no_grad()
def _outputs(forward: Callable[[nn.Module, Any], Tensor], model: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    return [forward(model, batch).clone() for batch in batches]


def _change(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest, relative to the largest output; not finite if an output is not."""
    pairs = zip(before, after, strict=True)
    return max(float((new - old).abs().max() / old.abs().max()) for old, new in pairs)
