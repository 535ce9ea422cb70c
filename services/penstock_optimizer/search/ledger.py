"""The ledger on disk: one file a trial, renamed into place when it is whole, so that no kill loses one that was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from penstock.errors import Invalid
from penstock.optimization.trials import TRIAL, BuildTrial, GateTrial, JudgeTrial, LoadTrial, SessionTrial, Trial
from penstock_optimizer.search.keys import trial_key
from penstock_runtime.atomic import write_atomically

LEDGER_INVALID: Final = "LedgerInvalid"


class Ledger:
    """Trials in the order in which they were kept.

    Args:
        folder: of the ledger; it must be there.
        search: the search's key.

    Raises:
        Invalid: a file is none of this version's.
    """

    def __init__(self, folder: Path, search: str) -> None:
        self._folder = folder
        self._search = search
        for torn in folder.glob(".*.json.*"):
            torn.unlink()
        self._trials = [_read(path) for path in sorted(folder.glob("*.json"))]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All that were kept."""
        return tuple(self._trials)

    @property
    def seconds(self) -> float:
        """That they took."""
        return sum(trial.seconds for trial in self._trials)

    def append(self, trial: Trial) -> None:
        """Keep a trial. When this returns, it is on disk."""
        key = trial_key(self._search, name_of(trial))
        path = self._folder / f"{len(self._trials):05d}-{name_of(trial)}-{key[:8]}.json"
        write_atomically(path, TRIAL.dump_json(trial, indent=1) + b"\n")
        self._trials.append(trial)


def name_of(trial: Trial) -> str:
    """What a trial is called. Within a search no two have the same name."""
    match trial:
        case BuildTrial():
            return f"build-{trial.recipe.key}"
        case JudgeTrial():
            return "judge"
        case GateTrial():
            return f"{trial.stage.lower()}-{trial.recipe_key}"
        case SessionTrial():
            return f"session-{trial.rung}-{trial.batch_size}-{trial.attempt}"
        case LoadTrial():
            return f"load-{trial.recipe_key}"


def _read(path: Path) -> Trial:
    try:
        return TRIAL.validate_json(path.read_bytes())
    except ValidationError as error:
        raise Invalid(
            LEDGER_INVALID, f"{path} is no trial of this version: remove the folder {path.parent} to search anew"
        ) from error
