"""A real figure, made once: Figure 8 with the digits in place of its data sets, at smoke scale."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from experiments.configuration.config import register
from experiments.figures.build import build

ROOT = Path(__file__).parents[3]
CURVES = ["figure.draw.name=curves", "~figure.draw.rows", "~figure.draw.lines", "+figure.draw.x=epoch"]
DIGITS = [
    "figure=nullspace/fig8",
    "scale=smoke",
    "data=digits",
    "model.widths=[80]",
    "training.epochs=2",
    "rates=suite",
]
DIGITS += CURVES
FASTER = ["data.train_samples=320", "data.test_samples=100", "model.teleport_samples=20", "optimizer=sgd"]


@contextmanager
def conf(folder: Path = ROOT / "conf") -> Iterator[None]:
    """Hydra, initialised as it is inside ``run.py``."""
    register()
    with initialize_config_dir(str(folder), version_base="1.3"):
        yield


def places(folder: Path) -> list[str]:
    """Runs and results under ``folder``."""
    return [f"machine.results={folder / 'results'}", f"machine.runs={folder / 'runs'}"]


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """The folder of the figure; its runs are in ``runs`` three folders up."""
    folder = tmp_path_factory.mktemp("figure")
    with conf():
        return build([*DIGITS, *FASTER, *places(folder)])


@pytest.fixture
def own_conf(tmp_path) -> Path:
    """A copy of ``conf/`` to add figures to."""
    return Path(shutil.copytree(ROOT / "conf", tmp_path / "conf"))
