"""The trials of one side, kept by Optuna in a file, so that tuning goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError
from experiments.tuning.arms import Arm

if TYPE_CHECKING:
    import optuna

RUNS = "runs"
"""The attribute of a trial that holds what it keeps of its runs."""


def load_optuna() -> ModuleType:
    """Optuna, without its log.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(f"tuning needs Optuna ({error}); install it with: pip install -e '.[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Study:
    """The trials of one side.

    Trial n is drawn with the seed ``n``, whatever was drawn before it in this process: trials that go on after an
    interruption are those of an unbroken tuning. The first one is the suite's own setting.

    Args:
        storage: the SQLite file, which may hold several studies.
        arm: the side.
        sampler: ``tpe`` or ``random``.
        terms: what must be the same for all trials, such as their seeds.

    Raises:
        UserError: Optuna is not installed, the file cannot be read, or its trials were made on other terms.
    """

    def __init__(self, storage: Path, arm: Arm, sampler: str, terms: dict[str, Any]) -> None:
        optuna = load_optuna()
        self.optuna, self.arm, self.sampler = optuna, arm, sampler
        storage.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.study = optuna.create_study(
                storage=f"sqlite:///{storage}", study_name=arm.teleport, direction="minimize", load_if_exists=True
            )
            known = self.study.user_attrs
        except Exception as error:  # of SQLAlchemy, whose classes follow its database
            reason = str(error).partition("\n")[0]
            raise UserError(f"the trials in '{storage}' cannot be read: {reason}; remove it to begin anew") from error
        for key, value in terms.items():
            if key not in known:
                self.study.set_user_attr(key, value)
            elif known[key] != value:
                raise UserError(
                    f"the trials of teleport={arm.teleport} in '{storage}' were made with {key} {known[key]}, not "
                    f"{value}; give that, or remove the file to begin anew"
                )

    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that have a value, in order."""
        return self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.COMPLETE,))

    def next(self) -> optuna.Trial:
        """The trial to make. One that was interrupted is drawn again, to the same parameters."""
        states = self.optuna.trial.TrialState
        for trial in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            self.study.tell(trial.number, state=states.FAIL)
        count = len(self.finished())
        if not count and not self.study.get_trials(deepcopy=False, states=(states.WAITING,)):
            self.study.enqueue_trial({key: self.arm.start.get(key, 0.0) for key in self.arm.keys})
        samplers = {"tpe": self.optuna.samplers.TPESampler, "random": self.optuna.samplers.RandomSampler}
        self.study.sampler = samplers[self.sampler](seed=count)
        trial = self.study.ask()
        self.arm.suggest(trial)
        return trial

    def tell(self, trial: optuna.Trial, value: float, runs: list[dict[str, Any]]) -> None:
        """Keep the value of a trial and what it keeps of its runs."""
        trial.set_user_attr(RUNS, runs)
        self.study.tell(trial, value)

    def best(self) -> optuna.trial.FrozenTrial:
        """The trial with the smallest value, the first of equal ones."""
        return min(self.finished(), key=lambda trial: (trial.value, trial.number))
