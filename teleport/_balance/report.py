"""The report of a balance."""

from __future__ import annotations

from typing import ClassVar

from teleport._change_of_basis.report import ChangeOfBasisReport


class BalanceReport(ChangeOfBasisReport):
    """What a balance did.

    Attributes:
        criterion_before, criterion_after: the p-norm of the parameters that the criterion is of (all, or all but
            biases), or of path conditioning the divergence ``n log(mean G_ii) - sum log G_ii`` of the path magnitudes
            from equal ones, which is zero if they are equal.
        imbalance_before, imbalance_after: the largest ``|a - b| / (a + b)`` of a channel, of the sums of the terms that
            rise and fall with its factor. Of norms: of the p-th powers of the incoming and the outgoing weights.
        newton_steps: until the minimum.

    If the guard undid the move, the values after it are those of the minimum that it had led to.
    """

    criterion_before: float
    criterion_after: float
    imbalance_before: float
    imbalance_after: float
    newton_steps: int
    _derived: ClassVar[tuple[str, ...]] = (
        *ChangeOfBasisReport._derived,
        *("criterion_before", "criterion_after", "imbalance_before", "imbalance_after", "newton_steps"),
    )

    def _headline(self) -> list[str]:
        return [
            *super()._headline(),
            f"  criterion {self.criterion_before:.6g} -> {self.criterion_after:.6g}; "
            f"imbalance {self.imbalance_before:.2e} -> {self.imbalance_after:.2e} in {self.newton_steps} Newton steps",
        ]
