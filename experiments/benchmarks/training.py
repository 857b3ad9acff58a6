"""The overhead of the suite's training loop, compared with a loop by hand and with a data set and a loader.

All train the same model from the same parameters with the same optimizer. The loop by hand holds the images as the
suite does, uses the same batches and does nothing else. The suite is timed twice: by the clock of its curves (steps and
checks of the losses), and as a whole run, which adds the work per evaluation: records and a checkpoint on the disk, and
here two evaluations of one sample. The loader is torchvision's MNIST with the usual transforms and two workers, which
start before the clock. The case without a model only looks up the batches.
"""

from __future__ import annotations

import copy
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.benchmarks.aims import Aim, ratio, rows
from experiments.benchmarks.common import MACHINE, TIMES, Row, Settings, Timed, machine, ratios, take_turns
from experiments.benchmarks.suite import configuration
from experiments.configuration.config import Config
from experiments.data.compat import torchvision
from experiments.data.images import ImageSplit
from experiments.data.registry import build_task
from experiments.models.registry import build_model
from experiments.run import methods
from experiments.run.batches import TrainingBatches
from experiments.run.seeding import Stream, generator, seed_everything
from experiments.run.teleporting import Teleports
from experiments.run.training import Training
from experiments.tasks import Task
from teleport import Schedule

SUITE, WHOLE, BARE, LOADER = "suite", "suite, whole run", "bare loop", "torchvision and loader"

NO_MODEL = "none"


@dataclass(frozen=True)
class Case:
    """``steps`` optimizer steps of ``batch_size`` samples of a ``model`` under ``conf/model``."""

    model: str
    steps: int
    batch_size: int = 32


AXES = [axis.name for axis in fields(Case)]

COLUMNS = ["method", "data", *AXES, *TIMES, "samples_a_second", "parameter_sum", *MACHINE]
"""``parameter_sum`` is over the trained parameters: equal if the computations are the same."""

FULL = [Case(NO_MODEL, 200), Case("mlp_small", 200), Case("mlp", 60), Case("cnn", 40)]
SMOKE = [Case(NO_MODEL, 10), Case("mlp_small", 10)]


def _against(method: str, model: str, value: str) -> Callable[[pd.DataFrame], float]:
    """The suite's ``value`` on ``model`` in units of the ``method``'s."""

    def figure(table: pd.DataFrame) -> float:
        return float(ratio(rows(table, model=model), AXES, SUITE, method, value).max())

    return figure


AIMS = [
    Aim("the suite's loop against one by hand, mlp", "<=", 1.02, _against(BARE, "mlp", "seconds")),
    *(
        Aim(f"samples a second against {LOADER}, {model}", ">=", 5, _against(LOADER, model, "samples_a_second"))
        for model in ("mlp_small", "mlp")
    ),
]


def measure(settings: Settings) -> Iterator[Row]:
    """One row per case and method; within a case the methods take turns.

    Raises:
        UserError: MNIST is missing and cannot be downloaded.
    """
    data, with_machine = "digits" if settings.smoke else "mnist", machine(settings.device)
    cases = SMOKE if settings.smoke else FULL
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            problem = Problem(case, data, settings.device, Path(scratch))
            for method, timed in problem.measure(settings.repeats).items():
                times = timed.columns()
                yield {
                    "method": method,
                    "data": data,
                    **asdict(case),
                    **times,
                    "samples_a_second": case.steps * case.batch_size / times["seconds"],
                    "parameter_sum": timed.last,
                    **with_machine,
                }
    torch.use_deterministic_algorithms(False)


def line(row: Row) -> str:
    """The model, the method, and milliseconds per step."""
    each = 1000 * row["seconds"] / row["steps"]
    return f"{row['model']:<10} {row['method']:<23} {each:8.3f} ms a step  {row['samples_a_second']:9.0f} samples/s"


def summary(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Seconds in units of the loop by hand, and samples per second in units of the loader's."""
    return {
        f"seconds, in units of the {BARE} (fastest rounds)": ratios(table, AXES, BARE, "fastest"),
        f"seconds, in units of the {BARE} (medians)": ratios(table, AXES, BARE),
        f"samples a second, in units of {LOADER}": ratios(table, AXES, LOADER, "samples_a_second"),
    }


class Problem:
    """One case: its task, its initial model, and the training loops."""

    def __init__(self, case: Case, data: str, device: torch.device, scratch: Path) -> None:
        self.case, self.device, self.scratch = case, device, scratch
        self.config = _configuration(case, data, device)
        self.clocked: list[float] = []  # seconds by the suite's clock
        self.task: Task = build_task(self.config.data, device)
        self.split = self.task.train
        assert isinstance(self.split, ImageSplit)
        torch.manual_seed(0)
        self.model: nn.Module | None = None
        if case.model != NO_MODEL:
            self.model = build_model(self.config.model, self.task.spec).to(device)

    def measure(self, repeats: int) -> dict[str, Timed[float]]:
        """The seconds of each method, and the sum over the parameters that it trained."""
        run = SUITE if self.model is None else WHOLE
        ways = {run: self.suite, BARE: self.bare, LOADER: self.loader}
        take_turns(ways, 1, self.device)  # a warm-up round
        self.clocked.clear()
        timed = take_turns(ways, repeats, self.device)
        return {SUITE: Timed(self.clocked, timed[WHOLE].last), **timed} if run == WHOLE else timed

    def suite(self) -> Callable[[], float]:
        """The suite's loop, set up as in a run."""
        seed_everything(self.config.seed)
        if self.model is None:
            loop = replace(self.config.training, batch_size=self.case.batch_size)
            batches = TrainingBatches(self.split, loop, self.config.seed, self.device)
            return lambda: self._train(None, map(batches.at, range(self.case.steps)))
        model, folder = copy.deepcopy(self.model), Path(tempfile.mkdtemp(dir=self.scratch))
        optimizer = methods.build_optimizer(self.config.optimizer, model)
        teleports = Teleports(None, Schedule(), self.task, self.config, self.device)
        training = Training(self.task, model, optimizer, teleports, self.config, folder, self.device)

        def work() -> float:
            self.clocked.append(training.run().training_seconds)
            return _sum_of(model)

        return work

    def bare(self) -> Callable[[], float]:
        """A loop by hand over the same batches."""
        torch.use_deterministic_algorithms(False)
        images, labels = self.split.images, self.split.labels
        mean, std, size = self.split.mean, self.split.std, self.case.batch_size

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            order = torch.randperm(len(labels), generator=generator(self.config.seed, Stream.ORDER)).to(self.device)
            for step in range(self.case.steps):
                index = order[step * size : (step + 1) * size]
                yield (images[index].float() - mean) / std, labels[index]

        model = copy.deepcopy(self.model)
        return lambda: self._train(model, batches())

    def loader(self) -> Callable[[], float]:
        """torchvision's data set, as its examples use it."""
        torch.use_deterministic_algorithms(False)
        vision, folder = torchvision(), self.scratch / "torchvision"
        _write_as_mnist(folder / "MNIST" / "raw", self.split)
        steps = [vision.transforms.ToTensor(), vision.transforms.Normalize((0.1307,), (0.3081,))]
        data = vision.datasets.MNIST(folder, train=True, transform=vision.transforms.Compose(steps))
        pinned = self.device.type == "cuda"
        source = torch.utils.data.DataLoader(data, self.case.batch_size, shuffle=True, num_workers=2, pin_memory=pinned)
        model, batches = copy.deepcopy(self.model), iter(source)

        def first() -> Iterator[tuple[Tensor, Tensor]]:
            for _, (inputs, targets) in zip(range(self.case.steps), batches, strict=False):
                yield inputs.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)

        return lambda: self._train(model, first())

    def _train(self, model: nn.Module | None, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        """The textbook loop; without a model it only iterates over the batches."""
        if model is None:
            for _ in batches:
                pass
            return 0.0
        optimizer = torch.optim.SGD(model.parameters(), self.config.optimizer.lr)
        for inputs, targets in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        return _sum_of(model)


def _configuration(case: Case, data: str, device: torch.device) -> Config:
    """A run of ``case.steps`` steps, with one evaluation at its end."""
    model = [] if case.model == NO_MODEL else [f"model={case.model}"]
    loop = [f"training.max_steps={case.steps}", f"training.eval_every={case.steps}", "training.eval_samples=1"]
    extent = ["data.train_samples=null", "data.test_samples=1", f"training.batch_size={case.batch_size}"]
    return configuration([f"data={data}", *model, *loop, *extent], device)


def _sum_of(model: nn.Module) -> float:
    return float(sum(parameter.detach().double().sum() for parameter in model.parameters()))


def _write_as_mnist(folder: Path, split: ImageSplit) -> None:
    """Write the training images in the published file format, and files of one image for the test split."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    images, labels = split.images[:, 0].cpu().numpy(), split.labels.cpu().numpy().astype(np.uint8)
    for name, count in (("train", len(labels)), ("t10k", 1)):
        for kind, values in (("images-idx3", images[:count]), ("labels-idx1", labels[:count])):
            header = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + values.tobytes())
