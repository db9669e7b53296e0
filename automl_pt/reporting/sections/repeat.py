"""Everything needed to repeat a study or a run: settings, data, versions, machine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automl_pt.config import SearchConfig, Settings, TrainConfig
from automl_pt.config.fields import HERE
from automl_pt.core.config_files import written
from automl_pt.core.errors import StudyError
from automl_pt.plugins.optimizers import PUBLISHED
from automl_pt.reporting.run import RunReport
from automl_pt.reporting.sections import Section, missing
from automl_pt.reporting.study import StudyReport
from automl_pt.study.store.study_files import read_object


def study_repeat(report: StudyReport) -> Section:
    """Return the settings of the search and of its best trial as files to run again."""
    directory = Path(report.directory)
    found = read_object(directory / "study.json")
    asked, given = found.get("asked"), found.get("given")
    commands = []
    if isinstance(asked, dict):
        commands = [_as_file("search", SearchConfig, asked, given if isinstance(given, list) else ())]
    record = _record(directory / "trials" / str(report.best.number)) if report.best is not None else {}
    if not record and not commands:
        return missing("No trial has left the record of its settings.")
    facts = [("study", report.name), ("folder", report.directory), *_facts(record)]
    return {"commands": commands, "facts": facts, "settings": _settings(record)}


def run_repeat(run: RunReport) -> Section:
    """Return the settings of a run as a file to run again, and the command that compares bit for bit."""
    config = run.record.get("config")
    if not isinstance(config, dict):
        return missing("The run's record has no settings.")
    commands = [_as_file("train", TrainConfig, config)]
    commands.append(
        {
            "what": "The same run again, compared bit for bit:",
            "lines": [shlex.join(["automl-pt", "reproduce", run.directory])],
        }
    )
    return {
        "commands": commands,
        "facts": [("folder", run.directory), *_facts(run.record)],
        "settings": _settings(run.record),
    }


def _record(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / "run.json")
    except StudyError:
        return {}


def _as_file(command: str, kind: type[Settings], asked: Mapping[str, Any], given: Sequence[str] = ()) -> dict[str, Any]:
    """Write the settings that are not the defaults as TOML, whose plain values are written as JSON's are.

    Characters such as emoji are not escaped as in JSON, because TOML refuses surrogate pairs. Settings with a published
    value of the optimiser are always written, because the published value applies to those that are not in the file.
    Where optimisers are searched each trial has its own values, so only the `given` ones are written.
    """
    own = any(str(entry).startswith("optimizer=") for entry in asked.get("search") or ())
    published = given if own else PUBLISHED if asked.get("optimizer", "sgd") != "sgd" else ()
    lines = [
        f"{name} = {written(value) if name == 'transforms' else json.dumps(value, ensure_ascii=False)}"
        for name, value in asked.items()
        if name in kind.model_fields and HERE not in kind.model_fields[name].metadata and value is not None
        if name in published or not (own and name in PUBLISHED) and not _is_default(kind, name, value)
    ]
    what = (
        f"As a file settings.toml, for `automl-pt {command} --config settings.toml`; what is not in it has its default:"
    )
    return {"what": what, "lines": lines}


def _is_default(kind: type[Settings], name: str, value: Any) -> bool:
    default = kind.model_fields[name].default
    return bool(value == (list(default) if isinstance(default, tuple) else default))


def _facts(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    data, versions = record.get("data"), record.get("versions")
    data, versions = (part if isinstance(part, dict) else {} for part in (data, versions))
    counts, notes = data.get("counts"), record.get("notes")
    images = ", ".join(f"{count} {split}" for split, count in counts.items()) if isinstance(counts, dict) else None
    plugins = record.get("plugins")
    names = (
        ", ".join(f"{one.get('name')} {one.get('version')}" for one in plugins if isinstance(one, dict))
        if isinstance(plugins, list)
        else ""
    )
    facts = [
        ("data", data.get("source")),
        ("images", images),
        ("fingerprint of the data", data.get("fingerprint")),
        ("device", record.get("device")),
        ("number format", record.get("precision")),
        ("CPU threads of a trial", record.get("threads")),
        ("plugins", names or None),
        ("started", record.get("started")),
        ("ended", record.get("ended")),
        *versions.items(),
        *(("done differently", note) for note in (notes if isinstance(notes, list) else [])),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _settings(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    config = record.get("config")
    return [(name, json.dumps(value)) for name, value in config.items()] if isinstance(config, dict) else []
