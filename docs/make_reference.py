"""Write docs/reference.md from the code: every command, option, setting, hook and error.

python docs/make_reference.py          writes the file
python docs/make_reference.py --check  exits 1 when the file is not what the code says
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import click

from automl_pt.backbone import Backbone, Catalogue, PublishedWeights, Trial
from automl_pt.cli import COMMANDS, LazyGroup, cli
from automl_pt.config import SearchConfig, Settings, TrainConfig
from automl_pt.core import errors
from automl_pt.dataset import Dataset, Hints, LabeledImages, LazyImages
from automl_pt.plugins import hookspecs
from automl_pt.tracker_events import EpochFinished, RunFinished, RunStarted, StudyFinished, TrackedRun, TrialFinished

TARGET = Path(__file__).parent / "reference.md"


def reference() -> str:
    """Return the whole page."""
    parts = [
        "# Reference\n\nMade from the code by `python docs/make_reference.py`; a test says when it is out of date.\n",
        "## Commands\n",
        *(command_text(name) for name in COMMANDS),
        "## Settings\n\nThe same names in a TOML file (`--config`), in Python (`train(...)`, `search(...)`) and, with "
        "dashes, on the command line.\n",
        settings_text("Shared by `train` and `search`", Settings, ()),
        settings_text("`train` alone", TrainConfig, tuple(Settings.model_fields)),
        settings_text("`search` alone", SearchConfig, tuple(Settings.model_fields)),
        "## Hooks\n\nA plugin implements any of these and marks them with `automl_pt.hookimpl`; [hooks.md](hooks.md) "
        "has an example of each, and who implements it.\n",
        *(hook_text(name) for name in (*hookspecs.REGISTERING, *hookspecs.TRACKING)),
        "## What hooks return and are told\n",
        *(
            class_text(kind)
            for kind in (Backbone, PublishedWeights, Trial, Catalogue, Dataset, Hints, LabeledImages, LazyImages)
        ),
        *(
            class_text(kind)
            for kind in (TrackedRun, RunStarted, EpochFinished, RunFinished, TrialFinished, StudyFinished)
        ),
        "## Errors\n\nEach has three parts: the rule, what was given, what to do next.\n",
        "```text\n" + inspect.cleandoc(errors.__doc__ or "").split("\n\n", 1)[1].rsplit("\n\n", 1)[0] + "\n```\n",
    ]
    return "\n".join(parts)


def command_text(name: str) -> str:
    """Show a command's own help, and that of its sub-commands."""
    settings: dict[str, Any] = {**cli.context_settings, "max_content_width": 100}
    context = click.Context(cli, info_name="automl-pt", terminal_width=100, **settings)
    assert isinstance(cli, LazyGroup)
    command = cli.get_command(context, name)
    assert command is not None
    own = click.Context(command, info_name=name, parent=context, max_content_width=100, terminal_width=100)
    text = f"### `automl-pt {name}`\n\n```text\n{command.get_help(own)}\n```\n"
    for child_name, child in sorted(getattr(command, "commands", {}).items()):
        inner = click.Context(child, info_name=child_name, parent=own, max_content_width=100, terminal_width=100)
        text += f"\n```text\n{child.get_help(inner)}\n```\n"
    return text


def settings_text(title: str, kind: type[Settings], without: tuple[str, ...]) -> str:
    """Show the fields of a settings class as a table."""
    rows = []
    for name, field in kind.model_fields.items():
        if name not in without:
            default = "required" if field.is_required() else f"`{field.default!r}`"
            rows.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join([f"### {title}\n", "| setting | default | meaning |", "|---|---|---|", *rows, ""])


def hook_text(name: str) -> str:
    """Show a hook's signature and its one sentence."""
    hook = getattr(hookspecs, name)
    return f"### `{name}{inspect.signature(hook)}`\n\n{inspect.cleandoc(hook.__doc__ or '')}\n"


def class_text(kind: type) -> str:
    """Show a class's source: its fields with the comments that explain them."""
    return f"### `{kind.__name__}`\n\n```python\n{inspect.getsource(kind)}```\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == reference() else 1)
    TARGET.write_text(reference())
