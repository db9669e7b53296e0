"""The command line: click commands and their display, no logic.

A command's module is imported when the command is used, so that `--help` stays quick.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from automl_pt.errors import AutomlError

#: name of a command: the module that holds it, and what `--help` says of it
COMMANDS = {
    "search": ("search", "Search learning rate and batch size; leave one finished model."),
    "train": ("train", "Train one model with fixed parameters."),
    "reproduce": ("reproduce", "Run a finished run again and compare bit for bit."),
    "predict": ("predict", "Classify images with a model."),
    "evaluate": ("evaluate", "Measure a model on labelled images."),
    "export": ("export", "Write a model as ONNX, torch.export or safetensors, checked."),
    "serve": ("serve", "Classify images over HTTP, with a page."),
    "report": ("report", "Show what a study found."),
    "dashboard": ("dashboard", "Open a study in Optuna's dashboard."),
    "studies": ("studies", "List the studies in studies/."),
    "check": ("check", "Look at every image before training."),
    "cache": ("cache", "List or prune the decoded images on disk."),
    "backbones": ("backbones", "List the networks that can be trained."),
    "fetch": ("fetch", "Bring pretrained weights onto this machine."),
    "datasets": ("datasets", "List the datasets known by name."),
    "plugins": ("plugins", "List the plugins that are installed."),
    "doctor": ("doctor", "Show what automl-pt finds on this machine."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"automl_pt.cli.{COMMANDS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="automl-pt")
@click.option("--traceback", is_flag=True, help="Show where in the program an error arose; also after a command.")
def cli(traceback: bool) -> None:
    """Search learning rate and batch size for an image classifier.

    Start with `automl-pt search FOLDER`, where FOLDER holds one folder of images per class.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped by a signal."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    traceback = "--traceback" in arguments
    try:
        words = [word for word in arguments if word != "--traceback"]
        with cli.make_context("automl-pt", words) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; everything finished so far is kept, and the same command goes on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output has gone, as with `| head`: nothing is wrong, and nobody is there to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        known = _known(error)
        if traceback or known is None:
            raise
        click.echo(f"error: {known}", err=True)
        sys.exit(known.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _known(error: Exception) -> AutomlError | None:
    """Return the error a person can act on: our own, or what a foreign one is known to mean."""
    if isinstance(error, AutomlError):
        return error
    from automl_pt.installation import explain

    return explain(error)
