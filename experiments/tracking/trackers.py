"""The trackers: how numbers, settings and files of a run are told to each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from experiments import files
from experiments.configuration.config import Config
from experiments.configuration.tracking_config import MlflowTracking, TensorBoardTracking, WandbTracking
from experiments.errors import UserError
from experiments.tracking.rows import flat

MARK = "tracked.json"
"""A file of the run's folder: by whom it is tracked, and as what."""
REMEDY = "remove it to track the run anew"


class Tracker(Protocol):
    """One run at one tracker."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Tell named numbers of an optimizer step."""

    def end(self, summary: Mapping[str, Any], paths: Sequence[Path]) -> None:
        """Tell how the run ended and the files that it made, pictures among them."""

    def close(self) -> None:
        """Write what is not written yet, of a run that ends or stops."""


class TensorBoard:
    """Event files; a run that goes on drops what an interrupted process told of later steps.

    Args:
        config: of the run.
        folder: of the run.
        settings: dotted key -> value.
        step: from which the run goes on.
    """

    def __init__(self, config: TensorBoardTracking, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(config.folder or str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        lines = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
        self.writer.add_text("settings", f"| key | value |\n|---|---|\n{lines}", step)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Tell named numbers of an optimizer step."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self, summary: Mapping[str, Any], paths: Sequence[Path]) -> None:
        """Tell how the run ended and the files that it made."""
        import numpy as np
        from PIL import Image

        step = int(summary["step"])
        for path in paths:
            if path.suffix == ".png":
                with Image.open(path) as image:
                    self.writer.add_image(path.stem, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is not written yet."""
        self.writer.close()


class WeightsAndBiases:
    """A run of W&B whose identifier is the folder's name, so that one that goes on is the same run there."""

    def __init__(self, config: WandbTracking, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        import wandb

        self.wandb = wandb
        try:
            self.run = wandb.init(
                project=config.project, id=folder.name[-64:], name=folder.name, dir=str(folder), mode=config.mode,
                config=dict(settings), resume="allow", settings=wandb.Settings(silent=True, console="off"),
            )  # fmt: skip
        except wandb.Error as error:
            raise UserError(f"Weights & Biases refuses the run: {error}; take tracking.mode=offline") from error

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Tell named numbers of an optimizer step."""
        self.run.log(dict(numbers), step=step)

    def end(self, summary: Mapping[str, Any], paths: Sequence[Path]) -> None:
        """Tell how the run ended and the files that it made."""
        self.run.summary.update({key: value for key, value in summary.items() if isinstance(value, int | float | str)})
        for path in paths:
            if path.suffix == ".png":
                self.run.log({path.stem: self.wandb.Image(str(path))}, step=int(summary["step"]))

    def close(self) -> None:
        """Write what is not written yet."""
        self.run.finish()


class Mlflow:
    """A run of MLflow, whose identifier is kept in the folder of the run."""

    def __init__(self, config: MlflowTracking, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        uri = config.uri or f"sqlite:///{folder.parent.resolve() / 'mlflow.db'}"
        self.client, mark = MlflowClient(uri), folder / MARK
        try:
            if step and mark.exists():
                self.run = str(files.read_json(mark, REMEDY)["mlflow"])
                return
            found = self.client.get_experiment_by_name(config.experiment)
            place = None if config.uri else (folder.parent.resolve() / "mlflow").as_uri()
            experiment = found.experiment_id if found else self.client.create_experiment(config.experiment, place)
            self.run = self.client.create_run(experiment, run_name=folder.name).info.run_id
            files.write_json(mark, {"mlflow": self.run})
            for key, value in settings.items():
                self.client.log_param(self.run, key, str(value)[:6000])
        except MlflowException as error:
            raise UserError(f"MLflow at '{uri}' refuses the run: {error}; give another tracking.uri") from error

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Tell named numbers of an optimizer step."""
        for name, value in numbers.items():
            self.client.log_metric(self.run, name, value, step=step)

    def end(self, summary: Mapping[str, Any], paths: Sequence[Path]) -> None:
        """Tell how the run ended and the files that it made."""
        for path in paths:
            self.client.log_artifact(self.run, str(path))
        self.client.set_terminated(self.run)

    def close(self) -> None:
        """Nothing is held back."""


TRACKERS: dict[str, tuple[type[Any], str]] = {
    "tensorboard": (TensorBoard, "tensorboard"),
    "wandb": (WeightsAndBiases, "wandb"),
    "mlflow": (Mlflow, "mlflow"),
}
"""Name -> the tracker and the module that it needs."""


def open_tracker(config: Config, folder: Path, settings: Mapping[str, Any], step: int) -> Tracker | None:
    """The tracker of a run; ``None`` for ``tracking=none``.

    Args:
        config: of the run.
        folder: of the run, which exists.
        settings: nested, of the run.
        step: from which the run goes on, 0 for a new one.

    Raises:
        UserError: its package is not installed, or it refuses the run.
    """
    if config.tracking.name not in TRACKERS:
        return None
    kind, module = TRACKERS[config.tracking.name]
    try:
        __import__(module)
        tracker: Tracker = kind(config.tracking, folder, flat(settings), step)
        return tracker
    except ImportError as error:
        raise UserError(
            f"tracking={config.tracking.name} needs {module} ({error}); install it with: pip install -e '.[tracking]'"
        ) from error
