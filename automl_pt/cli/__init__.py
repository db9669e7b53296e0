"""The command line: click commands and their display, without logic.

A command's module is imported when the command is used, so that `--help` stays quick.
"""

from __future__ import annotations

import errno
import sys
from importlib import import_module

import click

from automl_pt.cli.columns import say
from automl_pt.cli.streams import lasting_streams
from automl_pt.core.errors import AutomlError
from automl_pt.core.likeness import did_you_mean

#: name of a command: the module that holds it, and its line in `--help`
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
    "check": ("check", "Check every image before training."),
    "cache": ("cache", "List or prune the decoded images on disk."),
    "backbones": ("backbones", "List the networks that can be trained."),
    "fetch": ("fetch", "Download pretrained weights."),
    "datasets": ("datasets", "List the datasets known by name."),
    "plugins": ("plugins", "List the plugins that are installed."),
    "doctor": ("doctor", "Show what automl-pt finds on this machine."),
}

#: commands whose work is on disk or on the network: they continue when nothing can be printed
WORK = frozenset({"dashboard", "export", "reproduce", "search", "serve", "train"})


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a newcomer uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"automl_pt.cli.{COMMANDS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; for an unknown name, suggest similar ones."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            hint = did_you_mean(name, COMMANDS, show=str)
            ctx.fail(f"No such command '{name}'." + (f" D{hint[1:]}" if hint else ""))
        return super().resolve_command(ctx, args)

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
    """Run the command line and exit with one of the codes of docs/reference/exit-codes.md."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in arguments if word != "--traceback"]
    with lasting_streams() as output:
        output.on_loss = _say_continues if first_word(words) in WORK else _say_nothing
        code = _run(words, traceback="--traceback" in arguments)
        sys.stdout.flush()
        if output.lost is not None and output.on_loss is _say_nothing and not output.reader_left:
            say(f"error: {_unwritable(output.lost)}", err=True)
            code = code or 1
    sys.exit(code)


def first_word(words: list[str]) -> str:
    """Return the command's name."""
    return next((word for word in words if not word.startswith("-")), "")


def _run(words: list[str], *, traceback: bool) -> int:
    """Run a command and return its exit code; unknown errors are raised, with --traceback all errors."""
    try:
        with cli.make_context("automl-pt", words) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; everything finished so far is kept; run the same command to continue", err=True)
        return 130
    except Exception as error:
        known = _known(error)
        if traceback or known is None:
            raise
        say(f"error: {known}", err=True)
        return known.exit_code
    return code if isinstance(code, int) else 0


def _say_continues(error: OSError) -> None:
    """Print once that there is no further output; the work continues."""
    gone = error.errno == errno.EPIPE
    reason = "the reader of the output has gone" if gone else f"nothing more can be printed ({error.strerror or error})"
    stops = "; Ctrl-C stops it and keeps what is finished" if gone else ""
    say(f"note: {reason}; the work continues, and its results are written to disk{stops}", err=True)


def _say_nothing(error: OSError) -> None:
    """Report nothing yet: a reader that closed the pipe, as `| head` does, is not an error."""


def _unwritable(error: OSError) -> AutomlError:
    from automl_pt.core.errors import OutputError

    return OutputError(
        "what was to be printed could not be written",
        given=f"standard output: {error.strerror or error}",
        remedy="free some space, or send the output elsewhere, and run the command again",
    )


def _known(error: Exception) -> AutomlError | None:
    """Return an error that a person can act on: our own, or the known meaning of another library's."""
    if isinstance(error, AutomlError):
        return error
    from automl_pt.core.files import impossible_name
    from automl_pt.core.installation import exhausted, explain

    return impossible_name(error) or explain(error) or exhausted(error)
