"""What a run is called: a name with a hash of what it computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.configuration.config import RESULTS_VERSION, Config
from experiments.configuration.model_config import ModelConfig
from experiments.configuration.schedule_config import TeleportConfig
from experiments.errors import UserError

NOT_COMPUTED = ("machine", "rates", "scale", "figure", "tracking")
"""Keys that change where or how a run is made, or that are resolved into other keys, but not what it computes."""
NOT_COMPUTED_OF = {"data": ("root", "extents", "lengths"), "model": ("sizes", "label"), "teleport": ("label",)}

ADDED_SINCE: dict[str, dict[str, Any]] = {
    "teleport": {
        "objective": "squared_gradient_norm",
        "objective_scale": None,
        "forward": "once",
        "lr_unit": "absolute",
        "path": "ascent",
        "held_out_batches": 0,
    },
    "training": {
        "last_batch": "keep",
        "lr_warmup_steps": 0,
        "compile": False,
        "precision": "float32",
        "channels_last": False,
    },
    "model": {"bias": True, "weights": None},
    "data": {"split": "random"},
}
"""Keys younger than runs that are kept, and the values at which a run is what it was before there were such keys."""

REVISIONS = {"random": 3, "nullspace": 3, "auto": 2, "symmetry": 2, "orbit": 2}
"""Methods whose numbers changed since runs were kept, and the number of their revision; other runs keep their hash.

2 of ``random``: its directions depend on the seed, the event and the batch, before on the bytes of the weights, too.
3 of ``random``, 2 of the others but ``auto``: steps land on the cap by interpolation, at another norm in the 2 % below
it; and of null spaces the inputs of convolutions are summed in smaller parts, which moves them by rounding.
3 of ``nullspace``, 2 of ``auto``: the lengths to try on the way to the cap are learned from earlier lines of the event,
and the gradients at its start are computed without an autograd graph, some of them by other operations.
"""
BY_CAP_ALONE = ("symmetry", "orbit")
"""Those of them whose runs without a cap, or with ``step: fixed``, have the numbers that they had."""


def computed(config: Config) -> dict[str, Any]:
    """The part of a resolved configuration that decides a run's numbers; a file of weights by its content's SHA-256.

    Raises:
        UserError: the file cannot be read.
    """
    content = {key: value for key, value in asdict(config).items() if key not in NOT_COMPUTED}
    if config.model.weights is not None:
        content["model"]["weights"] = _digest(Path(config.model.weights))
    for group, keys in NOT_COMPUTED_OF.items():
        content[group] = {key: value for key, value in content[group].items() if key not in keys}
    for group, values in ADDED_SINCE.items():
        content[group] = {key: value for key, value in content[group].items() if values.get(key, ...) != value}
    teleport, name = content["teleport"], config.teleport.name
    if name in REVISIONS and (name not in BY_CAP_ALONE or _lands_on_a_cap(teleport)):
        teleport["revision"] = REVISIONS[name]
    return content


def _lands_on_a_cap(teleport: Mapping[str, Any]) -> bool:
    return teleport["step"] == "cap" and not (teleport["cap"] is None and teleport["relative_cap"] is None)


def identity(config: Config, data: str = "") -> str:
    """Ten hexadecimal digits of the SHA-256 of what ``config`` computes, as canonical JSON.

    Args:
        config: a resolved configuration.
        data: the content of the data files, if another run of the configuration was made with other content.
    """
    content = {"results_version": RESULTS_VERSION, **computed(config), **({"data_files": data} if data else {})}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _digest(weights: Path) -> str:
    try:
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"model.weights={weights} cannot be read: {reason}; it takes a file of torch.save(model.state_dict(), file)"
        ) from error


LONGEST = 200
"""Bytes of the name of a run's folder; file systems take 255, and temporary files have longer names."""


def run_folder(config: Config, data: str = "") -> Path:
    """The folder of the run that ``config`` describes, whether it is there or not; ``data`` as of :func:`identity`.

    Raises:
        UserError: a label or a name is no part of a file name, or too long for one.
    """
    names = {
        "data.name": config.data.name,
        "model.label": label(config.model),
        "optimizer.name": config.optimizer.name,
        "teleport.label": label(config.teleport),
    }
    for key, name in names.items():
        if not name.isprintable() or "/" in name or name != name.strip():
            raise UserError(
                f"{key} must be a part of a file name, without a slash or a space at its ends, not {name!r}"
            )
    folder = "-".join([*names.values(), f"s{config.seed}", identity(config, data)])
    length = len(folder.encode(errors="replace"))
    if length > LONGEST:
        key, name = max(names.items(), key=lambda item: len(item[1]))
        raise UserError(
            f"the name of the run's folder has {length} bytes, more than {LONGEST}: give a shorter {key} than "
            f"{name[:20]!r}..."
        )
    return Path(config.machine.runs) / folder


def label(group: ModelConfig | TeleportConfig) -> str:
    """The word for a model or a teleport in texts and folder names: its option (``mlp_small``), or else its name."""
    return group.label or group.name


def label_by_choices(config: DictConfig, choices: Mapping[str, Any]) -> None:
    """Label model and teleport of a composed ``config`` by the options that Hydra chose, unless they have labels."""
    for group in ("model", "teleport"):
        choice, node = choices.get(group), config.get(group)
        if choice and node is not None and node.get("label") is None:
            node.label = str(choice).replace("/", "_")
