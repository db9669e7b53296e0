"""Reads a study, finished or running, or one run, as plain values: the source of tables, JSON and pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from automl_pt.config import SearchConfig, make
from automl_pt.config.files import read_settings
from automl_pt.core.errors import ConfigError, OutputError, StorageError, StudyError, UnknownNameError
from automl_pt.core.locks import is_locked
from automl_pt.core.text import cut, printable
from automl_pt.study.extras.extras import EXTRAS
from automl_pt.study.floor import below_floor
from automl_pt.study.records import Gain, ProbeRecord, TrialRecord
from automl_pt.study.store.study_files import damaged, read_object
from automl_pt.study.views import ENDED, FINISHING, OWN_STORAGE, StudyViews, Trials

STUDIES = Path("studies")
#: a study's folder holds one of these: the settings, or the study
MARKS = ("study.json", "study.toml")
Status = Literal["not started", "running", "interrupted", "finished"]


@dataclass(frozen=True, repr=False)
class StudyReport(StudyViews):
    """The state of a study; a notebook shows it as a table with curves.

    `storage` shows no password; `settings` are those it was made with. `comparison` (the best model against the
    runner-up) and `test` (figures on the test split) exist once the search has ended. `stopped` says what ended it.
    """

    name: str
    directory: str
    status: Status
    dataset: str | None
    backbones: tuple[str, ...]
    storage: str | None
    settings: dict[str, Any]
    trials: Trials
    best: TrialRecord | None
    model: str | None
    comparison: dict[str, Any] | None
    test: dict[str, Any] | None
    stopped: str | None
    #: wall time of the last search
    seconds: float | None
    #: models made from several trials or all images: figures by `refit`, `ensemble`, `average`
    made: dict[str, Any] = field(default_factory=dict)
    #: the linear probes that the search began with
    probes: tuple[ProbeRecord, ...] = ()
    #: number of classes; 0 where the study does not say
    classes: int = 0
    #: what is searched, in words; None where the study does not say
    searched: str | None = None
    #: learning rates of each optimiser's trials, where optimisers are searched
    lr_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    #: what the search gained over the default and the rivals, once it has ended
    gain: Gain | None = None
    #: what a running search does after its trials
    doing: str | None = None

    @property
    def objective(self) -> str:
        """Return what chose the best; in studies from before it was a setting, the loss."""
        return str(self.settings.get("objective", "val_loss"))

    @property
    def state(self) -> str:
        """Return the status in words: what a search that has run its trials still does, or why it has ended."""
        if self.doing is not None:
            return f"finishing: {self.doing}"
        is_said = self.status == "running" or self.stopped in (None, self.status)
        return self.status if is_said else f"{self.status} ({ENDED.get(str(self.stopped), self.stopped)})"

    def states(self) -> dict[str, int]:
        """Count the trials by state."""
        return dict(sorted(Counter(trial.state for trial in self.trials).items()))

    def everything(self) -> tuple[TrialRecord, ...]:
        """Return the probes as trials, and the trials."""
        return (*(probe.as_trial() for probe in self.probes), *self.trials)

    def ended(self, trial: TrialRecord) -> str:
        """Return why a trial ended, the floor that it does not reach, and of a rival that it is one."""
        found = below_floor(trial, self.classes, self.probes)
        rival = None if trial.rival is None else f"{trial.unsearched}, untuned"
        return "; ".join(filter(None, [trial.reason, found, rival]))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON, trials in order of their numbers."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["backbones"] = list(self.backbones)
        plain["probes"] = [probe.to_dict() for probe in self.probes]
        plain["trials"] = [trial.to_dict() for trial in self.trials]
        plain["gain"] = asdict(self.gain) if self.gain is not None else None
        return {**plain, "best": self.best.to_dict() if self.best else None, "states": self.states()}


def read_study(study: str | Path, *, storage: str | None = None, ours: bool = False) -> StudyReport:
    """Return a study, given by its name in `studies/` or its folder.

    `storage` is the URL of a study that is kept outside its folder; the URL in the folder is never opened, because the
    folder may be untrusted. `ours` says that this process holds
    the study's lock and has ended its search. Raises UnknownNameError, StudyError
    for damaged files, StorageError when the storage cannot be read.
    """
    directory = find_study(study)
    found = read_object(directory / "study.json")
    if not found:
        return _not_started(directory)
    if not isinstance(found.get("name"), str) or not isinstance(found.get("storage"), str):
        raise damaged(directory / "study.json", "it names no study and storage")
    url = _url(directory, found, storage)
    about, judgement, trials, probes = _from_storage(url, found["name"])
    result, running = read_object(directory / "result.json"), not ours and is_in_use(directory)
    if any(trial.rival is not None for trial in trials):
        common = str(about.get("settings", {}).get("optimizer", "sgd"))
        trials = tuple(replace(trial, params={"optimizer": common, **trial.params}) for trial in trials)
    if not running:
        trials = tuple(replace(trial, reason="interrupted") if _cut_off(trial) else trial for trial in trials)
    best = _best((*(probe.as_trial() for probe in probes), *trials))
    is_current = bool(result) and not any(trial.reason in ("running", "interrupted") for trial in trials)
    return StudyReport(
        name=found["name"],
        directory=str(directory),
        status="running" if running else "finished" if _has_ended(result, is_current) else "interrupted",
        dataset=_dataset(directory),
        backbones=tuple(about.get("backbones", ())),
        storage=found["storage"],
        settings=about.get("settings", {}),
        trials=Trials(trials),
        best=best,
        model=str(directory / "model") if (directory / "model" / "model.json").exists() else None,
        comparison=judgement.get("comparison"),
        test=judgement.get("test"),
        stopped=result.get("stopped") if is_current else None,
        seconds=result.get("seconds") if is_current else None,
        made=read_object(directory / EXTRAS),
        probes=probes,
        classes=about.get("classes", 0),
        searched=str(about["searched"]) if "searched" in about else None,
        lr_ranges=_lr_ranges(about),
        gain=_gain(judgement),
        doing=_doing(directory) if running else None,
    )


def list_studies(root: Path = STUDIES, *, storage: str | None = None) -> list[StudyReport | Exception]:
    """Return every study in a folder, in order of name; an unreadable one is returned as its error.

    `storage` is opened for those outside their own folder.
    """
    reports: list[StudyReport | Exception] = []
    for directory in study_folders(root):
        try:
            reports.append(read_study(directory, storage=storage if is_elsewhere(directory) else None))
        except (ConfigError, StudyError, StorageError, OutputError) as error:
            reports.append(error)
    return reports


def is_elsewhere(directory: Path) -> bool:
    """Return whether the study in `directory` is kept in another storage; raise StudyError for a damaged file."""
    return bool(read_object(directory / "study.json").get("storage", OWN_STORAGE) != OWN_STORAGE)


def study_folders(root: Path = STUDIES) -> list[Path]:
    """Return the folders of studies, in order of name."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if any((path / mark).is_file() for mark in MARKS))


def find_study(study: str | Path) -> Path:
    """Return the folder of a study given by path or by its name in `studies/`; raise UnknownNameError."""
    path = Path(study)
    for candidate in (path, STUDIES / path):
        if any((candidate / mark).is_file() for mark in MARKS):
            return candidate
    known = [folder.name for folder in study_folders()]
    raise UnknownNameError("study", printable(study), known, remedy="`automl-pt studies` lists those in studies/")


def storage_url(study: str | Path, *, storage: str | None = None) -> str:
    """Return the URL of a study's storage; raises as `read_study`."""
    directory = find_study(study)
    found = read_object(directory / "study.json")
    if not isinstance(found.get("storage"), str):
        raise StudyError(
            "a study must have been started", given=printable(directory), remedy="search first: `automl-pt search`"
        )
    return _url(directory, found, storage)


def _from_storage(
    url: str, name: str
) -> tuple[dict[str, Any], dict[str, Any], tuple[TrialRecord, ...], tuple[ProbeRecord, ...]]:
    """Return the study's settings, its comparison, its trials and probes; nothing is written."""
    from automl_pt.study.resume import first_of_several
    from automl_pt.study.store.attributes import is_ours, record
    from automl_pt.study.store.backends import shown
    from automl_pt.study.store.errors import translated
    from automl_pt.study.store.reading import reading
    from automl_pt.study.store.trials import JUDGEMENT, PROBES, STUDY

    with reading(url) as storage, translated(shown(url)), _damage_named(shown(url)):
        try:
            study_id = storage.get_study_id_from_name(name)
        except KeyError as error:
            raise StudyError(
                "a study's storage must hold the study",
                given=f"{printable(name)} is not in {shown(url)}",
                remedy="give the storage that it was searched with by --storage",
            ) from error
        attributes = storage.get_study_user_attrs(study_id)
        about = _about(dict(attributes.get(STUDY) or {}))
        unnamed = first_of_several(about.get("backbones", ()))
        found = storage.get_all_trials(study_id, deepcopy=False)
        trials = tuple(record(trial, unnamed) for trial in found if is_ours(trial))
        judgement = dict(attributes.get(JUDGEMENT) or {})
        if (gain := _gain(judgement)) is not None:
            gain.sentence()  # which fails for values of another kind
    probes = tuple(ProbeRecord.from_dict(entry) for entry in attributes.get(PROBES) or ())
    return about, judgement, trials, probes


def _about(found: dict[str, Any]) -> dict[str, Any]:
    names = found.get("backbones", [])
    if not isinstance(found.get("settings", {}), dict) or not isinstance(names, list):
        raise ValueError("settings or backbones are of another kind")
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a backbone's name is no text")
    _lr_ranges(found)
    return found


def _gain(judgement: Mapping[str, Any]) -> Gain | None:
    found = judgement.get("gain")
    return Gain.from_dict(found) if found else None


def _lr_ranges(about: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    own = about.get("optimizers", {}).items()
    return {str(name): (float(values["lr"][0]), float(values["lr"][1])) for name, values in own}


@contextmanager
def _damage_named(shown_url: str) -> Iterator[None]:
    """Raise StudyError for values that no search writes, because the database may be untrusted."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError) as error:
        raise StudyError(
            "The study's storage holds values that no search has written",
            given=printable(f"{shown_url}: {type(error).__name__}: {error}")[:300],
            remedy="put it back from a copy, or start a new study",
        ) from error


def _url(directory: Path, found: Mapping[str, Any], given: str | None) -> str:
    from automl_pt.study.store.backends import default_url

    if given is not None:
        return given
    kept = found["storage"]
    if kept != OWN_STORAGE:
        raise StudyError(
            "The study is kept in another storage, which is opened only where --storage names it",
            given=printable(f"{directory / 'study.json'} names {kept}"),
            remedy="give the whole URL by --storage, where you trust it; a password is not kept in a study's folder",
        )
    if not (directory / kept).exists():
        raise StudyError(
            "the study's storage is missing from its folder",
            given=f"{printable(directory)} has no study.db",
            remedy="restore the file from a copy, or search again",
        )
    return default_url(directory)


def _not_started(directory: Path) -> StudyReport:
    path = directory / "study.toml"
    asked = make(SearchConfig, read_settings(SearchConfig, path), source=str(path), toml=True)
    return StudyReport(
        name=asked.name or directory.name,
        directory=str(directory),
        status="not started",
        dataset=asked.dataset,
        backbones=asked.backbones,
        storage=None,
        settings={},
        trials=Trials(),
        best=None,
        model=None,
        comparison=None,
        test=None,
        stopped=None,
        seconds=None,
    )


def _best(trials: tuple[TrialRecord, ...]) -> TrialRecord | None:
    from automl_pt.study.model_store import ranked

    return next(iter(ranked(trials)), None)


def _cut_off(trial: TrialRecord) -> bool:
    return trial.state == "RUNNING" and trial.reason == "running"


def _doing(directory: Path) -> str | None:
    doing = read_object(directory / FINISHING).get("doing")
    return None if doing is None else cut(printable(doing), 200)


def _has_ended(result: Mapping[str, Any], is_current: bool) -> bool:
    return is_current and result.get("stopped") != "interrupted"


def _dataset(directory: Path) -> str | None:
    """Return the dataset's name or path as it was given, from any run of the study."""
    for path in sorted(directory.glob("trials/*/run.json")):
        config = read_object(path).get("config", {})
        return str(config.get("dataset")) if isinstance(config, dict) else None
    return None


def is_in_use(directory: Path) -> bool:
    """Return whether a search is running: it holds the lock, which the kernel releases when it ends."""
    return is_locked(directory / ".lock")
