"""The reports of a gate and of a teleport that was tried on the training itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from teleport._engine.report import TeleportReport


@dataclass(frozen=True)
class Trial:
    """A virtual rollout without and with a move.

    Attributes:
        steps: of the optimizer.
        without: the mean loss on other batches after the steps, without the move.
        moved: the same after the move; infinite if it is not finite.
        noise: the standard error of the difference, over those batches.
        gradients: the cost of both rollouts, in gradients of a training batch.
    """

    steps: int
    without: float
    moved: float
    noise: float
    gradients: float

    @property
    def gain(self) -> float:
        """How much lower the loss is with the move."""
        return self.without - self.moved


class AutoReport(TeleportReport):
    """The report of an event of ``teleport.Auto``: that of the method that moved, with the trial that judged it."""

    trial: Trial | None = None

    _derived = ("trial_gain",)

    @property
    def trial_gain(self) -> float | None:
        """How much lower the loss was in the trial with the move; ``None`` if nothing was tried."""
        return None if self.trial is None else self.trial.gain

    def _headline(self) -> list[str]:
        lines = super()._headline()
        if self.trial is not None:
            lines.append(
                f"  trial of {self.trial.steps} steps: loss {self.trial.without:.4g} without the move, "
                f"{self.trial.moved:.4g} with it (+- {self.trial.noise:.1g}): "
                f"{'kept' if self.accepted else 'undone'}"
            )
        return lines


@dataclass(frozen=True)
class Family:
    """What one family of moves can do at the current parameters.

    Attributes:
        name: the method.
        growth: the gradient norm on the level set's batch after the move, over that before it.
        distance: the norm of the move over that of all trainable parameters.
        drift: the change of the mean loss on the other batches, relative to ``max(1, |loss|)``.
        curvature: ``g^T H g / |g|^2`` after the move, over that before it.
        one_step: the mean loss on other batches after one step of the optimizer, less that without the move.
        trial: the virtual rollout, ``None`` if the move was not tried.
        gradients: the cost of the move, in gradients of the batch.
        reason: why nothing moved, empty if something did.
    """

    name: str
    growth: float = 1.0
    distance: float = 0.0
    drift: float = 0.0
    curvature: float = 1.0
    one_step: float = 0.0
    trial: Trial | None = None
    gradients: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Assessment:
    """The answer of ``teleport.assess``.

    Attributes:
        go: whether a teleport by :class:`teleport.Auto` would be kept here, and is worth its cost.
        reasons: why, a sentence each.
        loss, gradient_norm, curvature: at the current parameters, on the first batch.
        families: what each family of moves can do.
        rates: factor on the learning rate -> mean loss on other batches after the rollout, without a move.
        steps: of the rollouts.
    """

    go: bool
    reasons: list[str]
    loss: float
    gradient_norm: float
    curvature: float
    families: list[Family]
    rates: dict[float, float]
    steps: int
    seconds: float = field(default=0.0)

    def __str__(self) -> str:
        """The assessment on one screen."""
        lines = [
            f"teleport: {'go' if self.go else 'no go'}; loss {self.loss:.4g}, gradient norm {self.gradient_norm:.4g}, "
            f"curvature {self.curvature:.4g} ({self.seconds:.2f} s)"
        ]
        lines += [f"  {reason}" for reason in self.reasons]
        for family in self.families:
            if family.reason:
                lines.append(f"  {family.name}: {family.reason}")
                continue
            lines.append(
                f"  {family.name}: norm x{family.growth:.3g}, curvature x{family.curvature:.3g}, moved "
                f"{family.distance:.2g} of the weights, drift {family.drift:+.1e}, one step {family.one_step:+.1e}, "
                f"{family.gradients:.0f} gradients"
            )
        rates = ", ".join(f"x{factor:g}: {loss:.4g}" for factor, loss in self.rates.items())
        lines.append(f"  loss after {self.steps} steps without a move, by factor on the rate: {rates}")
        return "\n".join(line if len(line) <= 160 else line[:157] + "..." for line in lines)
