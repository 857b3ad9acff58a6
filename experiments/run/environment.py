"""The environment of a run: versions, device, threads and commit."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from experiments.run.clock import counts_processor
from experiments.run.launched import place

PACKAGES = ("teleport-suite", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "scikit-learn", "nltk")


def environment(device: torch.device, compiled: bool = False) -> dict[str, Any]:
    """The environment that is recorded with a run; it is not part of the run's name.

    ``clock`` says what its seconds are: of the ``processor``, or of the ``wall`` clock. ``processes`` is their number
    if there are several.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "clock": "processor" if counts_processor(device, compiled) else "wall",
        "commit": commit(),
    } | ({"processes": place().size} if place().size > 1 else {})


def commit(here: Path = Path(__file__).parent) -> str | None:
    """The commit of the working tree of ``here``, with ``+`` if tracked files differ from it; ``None`` outside of git.

    Files in ``results/`` do not count: no run and no benchmark reads them, and one may have written some just before.
    """
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = ["git", "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results"]
        changed = subprocess.run(status, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name; ``platform`` knows only its architecture on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
