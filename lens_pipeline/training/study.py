"""Where a sweep remembers its trials: an Optuna study in SQLite or another database, whose address is never shown.

A trial whose process was killed is marked failed, with the reason, and its setting waits to be tried once more.
"""

import logging
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from lens_pipeline.contracts.errors import ConfigError, StorageError

VARIABLE = "LENS_PIPELINE_SWEEP_STORAGE"
# What a trial carries beside what Optuna keeps: why it ended as it did; whether its process was lost; of which lost trial it
# is the second go; where its process is; how long it took; and which settings it had.
REASON, LOST, AGAIN, PLACE, SECONDS, SETTING = "reason", "lost", "again", "place", "seconds", "setting"
_KILLED = "its process was killed"
# Longest wait for another process's write; a sweep's own take milliseconds.
LOCK_SECONDS = 20.0
_HEARTBEAT_SECONDS, _GRACE_SECONDS = 60, 180
_STORAGE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError, sqlite3.Error)
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class TrialStore:
    """The study of one sweep.

    Parameters
    ----------
    name : str
        Of the study: trials of one name are comparable.
    folder : Path
        Of the sweep, locked by this process: a trial that was running in it runs no more.
    address : str or None
        Optuna storage URL; None for a SQLite file in the folder.

    Raises
    ------
    ConfigError
        If the address can't be used.
    StorageError
        If the storage is locked, damaged or out of reach.
    """

    def __init__(self, name: str, folder: Path, *, larger_is_better: bool, address: str | None = None) -> None:
        self.place = f"{folder}"
        self._url = _parsed(address or f"sqlite:///{folder / 'study.db'}")
        self._alone = address is None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        with self.errors():
            self.study = optuna.create_study(
                storage=self._open(),
                study_name=name,
                direction="maximize" if larger_is_better else "minimize",
                load_if_exists=True,
            )

    @property
    def where(self) -> str:
        """The storage, for people: neither user nor password nor options."""
        return self._url.database or "" if self._url.host is None else f"{self._url.drivername}://{self._url.host}/..."

    def trials(self) -> list[FrozenTrial]:
        """Every trial, ascending."""
        with self.errors():
            return self.study.get_trials(deepcopy=False)

    def counted(self) -> list[FrozenTrial]:
        """Return ended trials, without lost ones that were given a second go."""
        trials = self.trials()
        again = {trial.user_attrs.get(AGAIN) for trial in trials}
        return [trial for trial in trials if trial.state in _ENDED and trial.number not in again]

    def recover(self) -> int:
        """Mark trials failed whose process is gone, and have each setting tried once more. Returns how many were lost."""
        with self.errors():
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if self._alone or trial.user_attrs.get(PLACE) == self.place:
                    self._mark(trial)
            trials = self.study.get_trials(deepcopy=False)
            again = {trial.user_attrs.get(AGAIN) for trial in trials}
            lost = [t for t in trials if t.state is TrialState.FAIL and LOST in t.user_attrs and t.number not in again]
            for trial in lost:
                self._try_again(self.study, trial)
            return len(lost)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Say what a storage's failure means, without its address.

        Raises
        ------
        StorageError
            In place of what the database throws.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                yield
        except (*_STORAGE_ERRORS, UnboundLocalError) as error:
            # Optuna hides a storage that fails at a trial's end behind a variable of its own that it did not set.
            found = error.__context__ if isinstance(error, UnboundLocalError) else error
            if not isinstance(found, _STORAGE_ERRORS):
                raise
            said = self._without_secrets(found)
            if "locked" in said or "lock timeout" in said:
                said = f"another process has locked it for {LOCK_SECONDS:g} s ({said})"
            # The cause isn't chained: its own words may hold the address.
            raise StorageError(
                f"the sweep's storage {self.where} can't be used: {said}. Trials that have ended stand there; next: free or "
                "mend the storage, and start the same sweep again, which goes on from there."
            ) from None

    def _open(self) -> RDBStorage:
        self._refuse_missing_driver()
        is_file = self._url.drivername.startswith("sqlite")
        try:
            return RDBStorage(
                self._url.render_as_string(hide_password=False),
                engine_kwargs={"connect_args": self._patience()},
                # A file's own sweep knows by its lock what was lost; other machines have to be told apart by signs of life.
                heartbeat_interval=None if is_file else _HEARTBEAT_SECONDS,
                grace_period=None if is_file else _GRACE_SECONDS,
                heartbeat_stale_trial_callback=None if is_file else self._try_again,
            )
        except RuntimeError as error:
            raise StorageError(
                f"the sweep's storage {self.where} was written by another Optuna: {self._without_secrets(error)}"
            ) from None

    def _patience(self) -> dict[str, Any]:
        """Say in a driver's own words how long to wait for a lock; PostgreSQL's default is for ever."""
        if self._url.drivername.startswith("sqlite"):
            return {"timeout": LOCK_SECONDS}
        if self._url.drivername.startswith("postgresql") and "options" not in self._url.query:
            return {"options": f"-c lock_timeout={LOCK_SECONDS * 1000:.0f}"}
        return {}

    def _refuse_missing_driver(self) -> None:
        try:
            self._url.get_dialect().import_dbapi()
        except (ModuleNotFoundError, ArgumentError):
            raise ConfigError(
                f"the storage that {VARIABLE} names can't be used: there is no driver for {self._url.drivername} here. "
                "Install one (for PostgreSQL: psycopg2-binary, or psycopg and an address that begins with "
                "postgresql+psycopg://), or unset it for a SQLite file in the home."
            ) from None

    def _mark(self, trial: FrozenTrial) -> None:
        storage = self.study._storage
        if REASON not in trial.user_attrs:
            storage.set_trial_user_attr(trial._trial_id, REASON, _KILLED)
        storage.set_trial_user_attr(trial._trial_id, LOST, True)
        self.study.tell(trial.number, state=TrialState.FAIL)

    @staticmethod
    def _try_again(study: optuna.Study, trial: FrozenTrial) -> None:
        if AGAIN not in trial.user_attrs and trial.params:
            study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})

    def _without_secrets(self, error: BaseException) -> str:
        root: Any = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        text = str(getattr(root, "orig", None) or root).partition("\n")[0]
        secrets = [self._url.render_as_string(hide_password=False), self._url.password, self._url.username]
        for secret in filter(None, [*secrets, *map(str, self._url.query.values())]):
            text = text.replace(str(secret), "***")
        return text


def reason_of(trial: FrozenTrial) -> str | None:
    """Return why a trial ended as it did; None for one that was trained to its end, or hasn't ended."""
    said: str | None = trial.user_attrs.get(REASON)
    if said is None and trial.state is TrialState.FAIL:
        return f"{_KILLED} (it gave no sign of life)"
    return said


def _parsed(address: str) -> URL:
    try:
        return make_url(address)
    except ArgumentError:
        raise ConfigError(
            f"{VARIABLE} isn't the address of a database: it begins like sqlite:// or postgresql:// (it is not shown, since "
            "it may hold a password)."
        ) from None
