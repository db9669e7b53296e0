"""Write the generated pages of docs/reference/ from the code: commands, settings, plugin values and errors.

python docs/make_reference.py          writes the files
python docs/make_reference.py --check  names the files that are not what the code says, and exits 1 if there are any
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from automl_pt.backbone import Backbone, Catalogue, PublishedWeights, Trial
from automl_pt.cli import COMMANDS, LazyGroup, cli
from automl_pt.config import SearchConfig, Settings, TrainConfig
from automl_pt.core import errors
from automl_pt.dataset import Dataset, Hints, LabeledImages, LazyImages
from automl_pt.plugins.augmentations import Augmentation
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.metrics import Metric, Predictions
from automl_pt.plugins.optimizers import Optimizer
from automl_pt.plugins.pruners import Pruner
from automl_pt.plugins.readers import ImageHeader, ImageReader
from automl_pt.plugins.samplers import Sampler, SearchSpace, Suggest
from automl_pt.study.pruning.base import PruningRule
from automl_pt.tracker_events import EpochFinished, RunFinished, RunStarted, StudyFinished, TrackedRun, TrialFinished

FOLDER = Path(__file__).parent / "reference"
GENERATED = "`python docs/make_reference.py` generates this page from the code. A test fails when it is out of date.\n"


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {
        "commands.md": commands_page(),
        "settings.md": settings_page(),
        "plugin-values.md": values_page(),
        "errors.md": errors_page(),
    }


def commands_page() -> str:
    """Return every command's own help."""
    return "\n".join(["# Commands\n", GENERATED, *(command_text(name) for name in COMMANDS)])


def settings_page() -> str:
    """Return every setting with its default and meaning."""
    parts = [
        "# Settings\n",
        GENERATED,
        "A setting has the same name in a TOML file (`--config`), in Python (`train(...)`, `search(...)`) and, with "
        "dashes, on the command line. Measured effects of the settings of a run are in [evidence: the recipe]"
        "(../evidence/recipe.md).\n",
        settings_text("Shared by `train` and `search`", Settings, ()),
        settings_text("`train` alone", TrainConfig, tuple(Settings.model_fields)),
        settings_text("`search` alone", SearchConfig, tuple(Settings.model_fields)),
    ]
    return "\n".join(parts)


def values_page() -> str:
    """Return the classes that hooks return and receive."""
    parts = [
        "# What hooks return and receive\n",
        GENERATED,
        "[hooks.md](hooks.md) has every hook with its signature and an example.\n",
        "## Returned by a `register_` hook\n",
        *(
            class_text(kind)
            for kind in (
                Backbone,
                PublishedWeights,
                Trial,
                Catalogue,
                Dataset,
                Hints,
                LabeledImages,
                LazyImages,
                ExecutorFactory,
                Sampler,
                Suggest,
                SearchSpace,
                Pruner,
                PruningRule,
                Optimizer,
                Augmentation,
            )
        ),
        class_text(Metric),
        class_text(Predictions),
        class_text(ImageReader),
        class_text(ImageHeader),
        "## Received by a tracker's hook\n",
        *(
            class_text(kind)
            for kind in (TrackedRun, RunStarted, EpochFinished, RunFinished, TrialFinished, StudyFinished)
        ),
    ]
    return "\n".join(parts)


def errors_page() -> str:
    """Return the tree of exceptions."""
    tree = textwrap.dedent(inspect.cleandoc(errors.__doc__ or "").split("\n\n", 1)[1].rsplit("\n\n", 1)[0])
    parts = [
        "# Errors\n",
        GENERATED,
        "Every error has three parts: what is wrong, what was given, and what to do next. `AutomlError` is the base "
        "class; the attributes `given` and `remedy` hold the second and third part.\n",
        f"```text\n{tree}\n```\n",
        "[Exit codes](exit-codes.md) has the exit codes of the command line.\n",
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


def class_text(kind: type) -> str:
    """Show a class's source: its fields with the comments that explain them."""
    return f"### `{kind.__name__}`\n\n```python\n{inspect.getsource(kind)}```\n"


def main() -> int:
    """Write the pages, or with `--check` compare them; return the exit code."""
    if "--check" not in sys.argv:
        for name, text in pages().items():
            (FOLDER / name).write_text(text)
        return 0
    stale = [name for name, text in pages().items() if (FOLDER / name).read_text() != text]
    if stale:
        print(f"out of date: {', '.join(stale)}; run python docs/make_reference.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
