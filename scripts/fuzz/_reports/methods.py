"""Every method with random settings, and what it promises."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import teleport


@dataclass(frozen=True)
class Drawn:
    """A method with its settings and its promises.

    Attributes:
        name: of the class; ``settings``: of its constructor.
        make: the method, with the random state of a new one.
        options: further arguments of a call.
        keeps_function: whether outputs on all data stay.
        keeps_loss: whether the loss of a batch stays within the ``tolerance``; ``may_fall``: it may be lower.
        caps: whether the gradient norm of a batch that moved is at most the cap.
        raises_norm: whether the gradient norm of a batch that moved is not below the one before.
        exact: whether the report has one layer per parameter, with its relative change.
        draws: whether it takes random numbers from ``generator``.
    """

    name: str
    settings: dict[str, Any]
    make: Callable[[], Any]
    options: dict[str, Any]
    keeps_function: bool = False
    keeps_loss: bool = False
    may_fall: bool = False
    caps: bool = False
    raises_norm: bool = False
    exact: bool = False
    draws: bool = False

    def __str__(self) -> str:
        """As code."""
        inside = ", ".join(f"{key}={value!r}" for key, value in self.settings.items())
        more = ", ".join(self.options)
        return f"{self.name}({inside}){' with ' * bool(more)}{more}"

    @property
    def tolerance(self) -> float:
        """Of the guard; infinite without one."""
        if self.settings.get("guard") == "none":
            return math.inf
        return float(self.settings.get("tolerance", 1e-3))


def _limits(draws: random.Random) -> dict[str, Any]:
    """Random caps, guard and tolerance."""
    settings: dict[str, Any] = {}
    if draws.random() < 0.5:
        settings["relative_cap"] = draws.choice([0.5, 1.5, 3.0, None])
    if draws.random() < 0.2:
        settings["cap"] = draws.choice([1e-3, 1.0, 100.0])
    if draws.random() < 0.2:
        settings["guard"] = "none"
    if draws.random() < 0.3:
        settings["tolerance"] = draws.choice([1e-6, 1e-2, 0.5])
    return settings


def _stepping(draws: random.Random, rates: list[float], unit: str = "") -> dict[str, Any]:
    settings: dict[str, Any] = {"steps": draws.choice([0, 1, 2, 2, 3, 4, 4])}
    if draws.random() < 0.7:
        settings["lr"] = draws.choice(rates)
    if unit and draws.random() < 0.4:
        settings[unit] = "absolute"
    return settings


def _objective(draws: random.Random) -> dict[str, Any]:
    if draws.random() < 0.5:
        return {}
    name = draws.choice(teleport.OBJECTIVES)
    scaled = name.lstrip("-") in ("loss_after_step", "sharpness") and draws.random() < 0.5
    return {"objective": name, **({"objective_scale": 0.1} if scaled else {})}


def null_space(draws: random.Random, model: nn.Module, batches: list[Any]) -> Drawn:
    """``NullSpace``."""
    settings = _limits(draws) | _stepping(draws, [0.01, 1.0, 100.0], "lr_unit") | _objective(draws)
    for name, values in {
        "threshold": [0.9, 0.999],
        "step": ["fixed"],
        "objective_params": ["moved"],
        "forward": ["each"],
    }.items():
        if draws.random() < 0.3:
            settings[name] = draws.choice(values)
    options = {"constraint": batches[:1]} if draws.random() < 0.2 else {}
    cap = settings.get("step") != "fixed"
    norm = "objective" not in settings or settings["objective"].endswith("gradient_norm")
    raises = cap and norm and settings.get("objective_params") != "moved"
    make = lambda: teleport.NullSpace(**settings)  # noqa: E731
    return Drawn("NullSpace", settings, make, options, keeps_loss=not options, caps=cap, raises_norm=raises)


def random_null_space(draws: random.Random, model: nn.Module, batches: list[Any]) -> Drawn:
    """``RandomNullSpace``."""
    settings = _limits(draws) | {"length": draws.choice([1e-3, 0.1, 10.0]), "seed": draws.randrange(9)}
    if draws.random() < 0.3:
        settings["threshold"] = 0.9
    options = {"constraint": batches[:1]} if draws.random() < 0.2 else {}
    make = lambda: teleport.RandomNullSpace(**settings)  # noqa: E731
    return Drawn("RandomNullSpace", settings, make, options, keeps_loss=not options, caps=True, draws=True)


def level_set(draws: random.Random, model: nn.Module, batches: list[Any]) -> Drawn:
    """``LevelSet``."""
    settings = _limits(draws) | _stepping(draws, [0.01, 0.5], "lr_unit")
    make = lambda: teleport.LevelSet(**settings)  # noqa: E731
    return Drawn("LevelSet", settings, make, {}, keeps_loss=True, may_fall=True, caps=True, exact=True)


def symmetry(draws: random.Random, model: nn.Module, batches: list[Any]) -> Drawn:
    """``Symmetry``."""
    settings = _limits(draws) | _stepping(draws, [1e-3, 0.1], "lr_unit")
    settings["variant"] = draws.choice(["2022", "2024", "corrected"])
    if draws.random() < 0.3:
        settings["step"] = "fixed"
    if draws.random() < 0.2 and settings["variant"] != "2024":
        settings["inverse"] = draws.choice(["exact", "first_order"])
    cap = settings.get("step") != "fixed"
    make = lambda: teleport.Symmetry(**settings)  # noqa: E731
    return Drawn("Symmetry", settings, make, {}, keeps_loss=True, caps=cap)


def rescaling(draws: random.Random, model: nn.Module, batches: list[Any]) -> Drawn:
    """``Rescaling``."""
    settings = _limits(draws) | _stepping(draws, [0.01, 0.5]) | {"mode": draws.choice(["ascent", "ascent", "balance"])}
    if draws.random() < 0.3:
        settings["bound"] = draws.choice([0.1, 1.0])
    ascent = settings["mode"] == "ascent"
    make = lambda: teleport.Rescaling(**settings)  # noqa: E731
    promises = {"keeps_function": True, "keeps_loss": True, "caps": ascent, "raises_norm": ascent}
    return Drawn("Rescaling", settings, make, {}, **promises)


def _basis(draws: random.Random) -> dict[str, Any]:
    settings: dict[str, Any] = {"sampling": draws.choice(["intra", "inter", "positive", "negative", "centered"])}
    settings |= {"range": draws.choice([0.1, 0.5, 0.9]), "activations": draws.choice(["keep", "teleport"])}
    return settings


def change_of_basis(draws: random.Random, model: nn.Module, batches: list[Any]) -> Drawn:
    """``ChangeOfBasis``, with a loss or without."""
    settings = _basis(draws)
    if draws.random() < 0.2:
        settings["guard"] = "none"
    options = {"without a loss": True} if draws.random() < 0.3 else {}
    make = lambda: teleport.ChangeOfBasis(**settings)  # noqa: E731
    return Drawn("ChangeOfBasis", settings, make, options, keeps_function=True, keeps_loss=not options, draws=True)


def balance(draws: random.Random, model: nn.Module, batches: list[Any]) -> Drawn:
    """``Balance`` of norms, with a loss or without."""
    settings = {"criterion": draws.choice(["minimal_norm", "equal_norm"]), "p": draws.choice([1.0, 2.0, 3.0])}
    options = {"without a loss": True} if draws.random() < 0.3 else {}
    make = lambda: teleport.Balance(**settings)  # noqa: E731
    return Drawn("Balance", settings, make, options, keeps_function=True, keeps_loss=not options)


def pseudo_teleport(draws: random.Random, model: nn.Module, batches: list[Any]) -> Drawn:
    """``PseudoTeleport``."""
    settings = _basis(draws)
    make = lambda: teleport.PseudoTeleport(**settings)  # noqa: E731
    return Drawn("PseudoTeleport", settings | {"guard": "none"}, make, {}, exact=True, draws=True)


def orbit(draws: random.Random, model: nn.Module, batches: list[Any]) -> Drawn:
    """``Orbit``, of a scale of one parameter."""
    settings = _limits(draws) | _stepping(draws, [0.01, 1.0]) | _objective(draws)
    names = [name for name, p in model.named_parameters() if p.requires_grad and p.is_floating_point()]
    chosen = draws.choice(names) if names else "missing"

    def action(theta: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {chosen: weights[chosen] * theta.exp()}

    make = lambda: teleport.Orbit(action, **settings)  # noqa: E731
    return Drawn("Orbit", settings, make, {}, keeps_loss=True, caps=True, exact=True)


METHODS = {
    "NullSpace": null_space,
    "RandomNullSpace": random_null_space,
    "LevelSet": level_set,
    "Symmetry": symmetry,
    "Rescaling": rescaling,
    "Balance": balance,
    "ChangeOfBasis": change_of_basis,
    "PseudoTeleport": pseudo_teleport,
    "Orbit": orbit,
}
"""The methods by name."""


def call(
    drawn: Drawn,
    model: nn.Module,
    batches: Any,
    loss_fn: Callable[..., Tensor],
    generator: torch.Generator | None = None,
    callback: Callable[[teleport.Progress], bool | None] | None = None,
    preview: bool = False,
) -> teleport.TeleportReport:
    """One call of the method."""
    options = dict(drawn.options)
    if options.pop("without a loss", False):
        loss_fn = None  # type: ignore[assignment]
    options |= {"generator": generator, "callback": callback}
    if preview:
        return teleport.preview(drawn.make(), model, batches, loss_fn, **options)
    return drawn.make()(model, batches, loss_fn, **options)
