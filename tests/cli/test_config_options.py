"""A TOML file takes every option of its command, by the option's own name; the cases come from the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from automl_pt.cli import COMMANDS, cli
from automl_pt.cli.options import OPTIONS, Numbers, Range, build_config, from_file
from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core.config_files import written
from automl_pt.core.errors import ConfigError

KINDS: dict[str, Any] = {"train": TrainConfig, "search": SearchConfig}
#: values of texts that not every text may be: as a word of the command line
WORDS = {
    "channels": "3",
    **{"device": "cpu", "engine": "ray", "class_weights": "cat=2", "max_params": "10M", "search": "momentum=0.1:0.8"},
    **{"backbone_options": "width=2", "group_by": "a(b)", "trials_per_gpu": "auto"},
}
#: settings without which another one is refused
BESIDE = {
    "min_delta": {"stop_rule": "best"},
    **{name: {"engine": "ray"} for name in ("ray_address", "gpus_per_trial", "cpus_per_trial")},
}


def with_files() -> list[str]:
    """Name the commands that take a config file."""
    return [name for name in COMMANDS if any(param.name == "config" for param in command(name).params)]


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def options(name: str) -> Iterator[tuple[click.Option, str]]:
    """Yield each option of a command with each of its long names."""
    for param in command(name).params:
        if isinstance(param, click.Option) and param.name not in ("config", "help"):
            for flag in (*param.opts, *param.secondary_opts):
                if flag.startswith("--"):
                    yield param, flag


def value(param: click.Option, default: Any) -> tuple[str, Any]:
    """Return a value other than the default: as a word of the command line, and as TOML has it."""
    if isinstance(param.type, click.Choice):
        word = next(one for one in param.type.choices if one != default)
        return word, word
    if isinstance(param.type, Range):
        return "0.25:0.5", [0.25, 0.5]
    if isinstance(param.type, Numbers):
        return "8,32", [8, 32]
    if isinstance(param.type, click.types.FloatParamType):
        return "0.25", 0.25
    if isinstance(param.type, click.types.IntParamType):
        number = (default or 1) + 1
        return str(number), number
    assert isinstance(param.type, click.types.StringParamType | click.Path), f"no value of {param.name} is known here"
    word = WORDS.get(str(param.name), "text")
    return word, word


def read(name: str, *words: str) -> tuple[Any, dict[str, Any]]:
    """Return the settings and the other options of a command line, read as the command does."""
    given = dict(command(name).make_context(name, list(words)).params)
    config = given.pop("config")
    own = {option: given.pop(option) for option in OPTIONS.values() if option in given}
    return build_config(KINDS[name], config, given), from_file(config, **own)


CASES = [pytest.param(name, param, flag, id=f"{name} {flag}") for name in with_files() for param, flag in options(name)]


def test_the_commands_with_a_file_are_known() -> None:
    assert with_files() == ["search", "train"]
    assert len(CASES) > 150


@pytest.mark.parametrize(("name", "param", "flag"), CASES)
def test_an_option_in_a_file_is_the_option(name: str, param: click.Option, flag: str, tmp_path: Path) -> None:
    field = KINDS[name].model_fields.get(param.name)
    words, toml = ([], True) if param.is_flag else value(param, field.default if field else None)
    beside = BESIDE.get(str(param.name), {})
    said = [word for key, text in beside.items() for word in (f"--{key.replace('_', '-')}", text)]
    wanted = read(name, "digits", flag, *([words] if isinstance(words, str) else []), *said)
    lines = [f"{key} = {written(text)}" for key, text in {"dataset": "digits", **beside}.items()]
    for key in (flag[2:], flag[2:].replace("-", "_")):
        path = tmp_path / "options.toml"
        path.write_text("\n".join([*lines, f"{key} = {written(toml)}"]))
        assert read(name, "--config", str(path)) == wanted
    assert wanted != read(name, "digits", *said) or default_flag(param, flag, field)


def default_flag(param: click.Option, flag: str, field: Any) -> bool:
    """Return whether a flag says what is so without it."""
    return param.is_flag and field is not None and field.default is (flag in param.opts)


def test_the_dataset_is_taken_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text('dataset = "photos"')
    assert read("train", "--config", str(path))[0].dataset == "photos"
    assert read("train", "other", "--config", str(path))[0].dataset == "other"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('backbone = "a"\nbackbones = ["b"]', "backbone: backbones is the same setting; give one of the two"),
        ("probe = true\nno_probe = true", "no_probe: probe is the same setting; give one of the two"),
        ("from_scratch = 1", "pretrained: must be true or false, got the integer 1"),
        ("image-size = 8\nimage_size = 8", "image-size: is given twice, with dashes and with underscores"),
    ],
)
def test_what_contradicts_itself_is_named(text: str, mistake: str, tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text(f'dataset = "digits"\n{text}')
    with pytest.raises(ConfigError) as caught:
        read("search", "--config", str(path))
    assert mistake in caught.value.mistakes


def test_a_search_says_where_its_study_is_instead_of_an_output(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text('dataset = "digits"\noutput = "here"')
    with pytest.raises(ConfigError, match="kept in studies/NAME; give name instead"):
        read("search", "--config", str(path))
