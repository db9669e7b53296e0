"""Reads the settings of a config file, which may also be named as their options are on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_origin

from automl_pt.config.settings import Settings
from automl_pt.core.config_files import COMMAND_OPTIONS, read_toml
from automl_pt.core.errors import ConfigError
from automl_pt.core.search_entries import plain_type

#: settings whose option has another name, because it is given several times or as a list
OPTION_NAMES = {
    **{"backbones": "backbone", "batch_sizes": "batch_size", "plugins": "plugin", "trackers": "tracker"},
    "backbone_options": "backbone_option",
}
#: options that set a truth value to false, besides those named no_SETTING
OPPOSITES = {"from_scratch": "pretrained"}


def read_settings(kind: type[Settings], path: Path) -> dict[str, Any]:
    """Return the settings of `kind` in a config file, without the options of the command.

    An option's name stands for its setting, with dashes too: `backbone = "lite0"` for `backbones = ["lite0"]`, and
    `no-probe = true` for `probe = false`. Raises ConfigError for a setting that is given twice, and as `read_toml`.
    """
    given = read_toml(path)
    table = {name.replace("-", "_"): value for name, value in given.items()}
    twice = [name for name in given if "-" in name and name.replace("-", "_") in given]
    mistakes = [f"{name}: is given twice, with dashes and with underscores" for name in twice]
    found: dict[str, Any] = {}
    for name, value in table.items():
        if name in COMMAND_OPTIONS:
            continue
        setting, meant = _meaning(kind, name, value)
        if setting in found or (setting != name and setting in table):
            mistakes.append(f"{name}: {setting} is the same setting; give one of the two")
        found[setting] = meant
    if mistakes:
        raise ConfigError(mistakes, source=str(path))
    return found


def _meaning(kind: type[Settings], name: str, value: Any) -> tuple[str, Any]:
    """Return the setting that a name in a file means, and its value."""
    if name in kind.model_fields:
        return name, value
    setting = next((one for one, option in OPTION_NAMES.items() if option == name and one in kind.model_fields), None)
    if setting is not None:
        several = get_origin(plain_type(kind.model_fields[setting].annotation)) is tuple
        return setting, [value] if several and not isinstance(value, list) else value
    opposite = OPPOSITES.get(name) or name.removeprefix("no_")
    field = kind.model_fields.get(opposite)
    if opposite == name or field is None or plain_type(field.annotation) is not bool:
        return name, value
    return opposite, not value if isinstance(value, bool) else value
