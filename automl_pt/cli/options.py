"""Command-line options made from the settings, which hold the names, texts and defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from automl_pt.config import SearchConfig, Settings, TrainConfig, make
from automl_pt.config.files import OPTION_NAMES, read_settings
from automl_pt.core.config_files import read_command_options
from automl_pt.core.errors import ConfigError
from automl_pt.core.search_entries import plain_type

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", TrainConfig, SearchConfig)

#: options of a command that are not settings: names in a TOML file -> parameters
OPTIONS = {"output": "output", "quiet": "quiet", "json": "as_json"}
#: what to say of one that a command with a config file does not have
ABSENT = {"output": "output: a search has none, because its study is kept in studies/NAME; give name instead"}


class Range(click.ParamType[Any]):
    """`LOW:HIGH`, or one number for both."""

    name = "low:high"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the two ends as floats."""
        low, _, high = str(value).partition(":")
        try:
            return float(low), float(high or low)
        except ValueError:
            self.fail(f"{value!r} is not LOW:HIGH, such as 1e-4:1.0", param, ctx)


class Numbers(click.ParamType[Any]):
    """Integers separated by commas."""

    name = "n,n,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of integers."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers, such as 8,16,32", param, ctx)


def settings_options(kind: type[Settings]) -> Callable[[F], F]:
    """Return a decorator that adds an option for every field of `kind` except the dataset, which is an argument."""

    def decorate(function: F) -> F:
        for name, field in reversed(kind.model_fields.items()):
            if name not in ("dataset", "transforms"):  # an argument, and a list of tables in a file
                function = option(name, field)(function)
        config = click.option(
            "--config", type=click.Path(path_type=Path), help="TOML file of options; those given here win."
        )
        return click.argument("dataset", required=False)(config(function))

    return decorate


def option(name: str, field: FieldInfo) -> Callable[[F], F]:
    """Make the option of one setting; it has no default, because the settings have it."""
    flag = f"--{OPTION_NAMES.get(name, name).replace('_', '-')}"
    text = f"{(field.description or '')[0].upper()}{(field.description or '')[1:]}"
    default = _shown(field.default)
    help_text = f"{text}.  [{default}]" if default else f"{text}."
    plain = plain_type(field.annotation)
    if name == "pretrained":  # the opposite has its own name; --no-pretrained is its earlier name
        return click.option("--pretrained/--from-scratch", " /--no-pretrained", name, default=None, help=help_text)
    if plain is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    if name == "lr" and get_origin(plain) is tuple:
        return click.option(flag, name, type=Range(), help=help_text)
    if name == "rivals":
        return click.option(flag, name, metavar="NAMES|none", help=help_text)
    if name == "class_weights":
        return click.option(flag, name, metavar="NAME=WEIGHT,...", help=help_text)
    if name == "channels":
        return click.option(flag, name, metavar="auto|1|3|N", help=f"{help_text[:-1]}.  [auto]")
    if name == "max_params":
        return click.option(flag, name, metavar="N", help=help_text)
    if name == "batch_sizes":
        return click.option(flag, name, type=Numbers(), help=help_text)
    if get_origin(plain) is tuple:
        return click.option(flag, name, multiple=True, help=f"{help_text} May be given several times.")
    kind: Any = click.Choice(get_args(plain)) if get_origin(plain) is Literal else plain
    return click.option(flag, name, type=kind, help=help_text)


def build_config(kind: type[C], config: Path | None, options: Mapping[str, Any]) -> C:
    """Return the settings of a TOML file, overridden by the options; raise one ConfigError that lists every mistake."""
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    settings = read_settings(kind, config) if config is not None else {}
    source = str(config) if config is not None else "settings"
    return make(kind, {**settings, **given}, source=source, toml=config is not None)


def from_file(config: Path | None, **options: Any) -> dict[str, Any]:
    """Return the options of a command that are not settings; the TOML file supplies those that are not given.

    In the file they are beside the settings, named as in `OPTIONS`. Raises ConfigError for a value of the wrong
    type, and for an option that the command does not have.
    """
    found = read_command_options(config) if config is not None else {}
    unknown = [ABSENT.get(name, f"{name}: the command has no such option") for name in found]
    unknown = [text for text, name in zip(unknown, found, strict=True) if OPTIONS[name] not in options]
    if unknown:
        raise ConfigError(unknown, source=str(config))
    for name, value in found.items():
        options[OPTIONS[name]] = options[OPTIONS[name]] or (Path(value) if isinstance(value, str) else value)
    return options


def _shown(default: Any) -> str:
    if default is None or isinstance(default, bool) or default == () or repr(default) == "PydanticUndefined":
        return ""
    if isinstance(default, tuple):
        return (":" if isinstance(default[0], float) else ",").join(
            f"{item:g}" if isinstance(item, float) else str(item) for item in default
        )
    return f"{default:g}" if isinstance(default, float) else str(default)
