"""`automl-pt predict`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from automl_pt.cli.columns import say
from automl_pt.cli.names import load_for_model
from automl_pt.cli.streams import OUTPUT
from automl_pt.cli.working import load

if TYPE_CHECKING:
    from automl_pt.model.load import Model
    from automl_pt.model.prediction_files import PredictionColumns, Writer


@click.command("predict")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="CSV, .jsonl or .parquet file.  [CSV on stdout]")
@click.option("--top", type=click.IntRange(min=1), help="The K likeliest classes instead of a column for each class.")
@click.option("-0", "nul", is_flag=True, help="Names on standard input (-) end in NUL bytes, not line breaks.")
@click.option("--no-temperature", "raw", is_flag=True, help="Leave out the temperature that is kept with a model.")
@click.option("--force", is_flag=True, help="Replace an output file that is there already.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Images per forward pass."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads that decode images.  [one a core]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:n] or mps.")
@click.option("--plugin", "plugins", multiple=True, help="A plugin file to load. May be given several times.")
@click.option("--quiet", is_flag=True, help="No progress and no summary on standard error.")
def command(
    model: Path,
    images: tuple[str, ...],
    output: Path | None,
    top: int | None,
    nul: bool,
    raw: bool,
    force: bool,
    batch_size: int,
    threads: int | None,
    device: str,
    plugins: tuple[str, ...],
    quiet: bool,
) -> int:
    """Classify IMAGES with MODEL, one row per image.

    MODEL is a model directory, or a run or study that holds one. IMAGES are files, folders, patterns such as
    '*.jpg', or - for names on standard input. The exit code is 1 if files could not be read; their rows state why.
    If the model has a rule for unsure answers, the column `unsure` says which are, and why.
    """
    from automl_pt.layouts.listing import list_images, read_list
    from automl_pt.model.prediction_files import PredictionColumns, check_output

    if output is not None:
        check_output(output, force=force)
    registered = load_for_model(plugins, model)
    named = [path for word in images for path in (read_list(sys.stdin.buffer, nul=nul) if word == "-" else [word])]
    listing = list_images(named)

    load("automl_pt.model.predict", quiet=quiet)
    from automl_pt.cli.predict_display import progress
    from automl_pt.data.pixel_survey import conversion_note
    from automl_pt.model.load import load_model
    from automl_pt.model.predict import predict_files

    loaded = load_model(model, device=device, plugins=registered, calibrated=not raw)
    paths = listing.paths
    columns = PredictionColumns(
        loaded.classes, None if top is None else min(top, len(loaded.classes)), loaded.rule is not None
    )
    unreadable, unsure = 0, Counter[str]()
    with _writer(output, columns) as writer, progress(len(paths), quiet=quiet) as advance:
        for prediction in predict_files(loaded, paths, batch_size=batch_size, threads=threads):
            writer.write(prediction)
            unreadable += prediction.error is not None
            unsure.update([prediction.answer.unsure] if prediction.answer and prediction.answer.unsure else ())
            advance()
            if output is None and OUTPUT.lost is not None:
                return 0  # the reader closed the pipe; `main` reports it if that is an error
    if not quiet:
        converted = conversion_note(paths, loaded.info.preprocessing.pixels)
        for note in (*listing.notes, *([] if converted is None else [converted])):
            say(f"note: {note}", err=True)
        if loaded.micro_batch.note is not None:
            say(f"note: {loaded.micro_batch.note}", err=True)
        _say_counts(loaded, len(paths) - unreadable, unreadable, unsure)
    return 1 if unreadable else 0


def _say_counts(loaded: Model, classified: int, unreadable: int, unsure: Counter[str]) -> None:
    """Say how many images were classified, and how many answers are unsure for which reason."""
    from automl_pt.core.text import counted

    at = "" if loaded.temperature == 1 else f", probabilities at temperature {loaded.temperature:.4g}"
    click.echo(f"{classified} images classified, {unreadable} not readable{at}", err=True)
    if loaded.rule is not None:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in unsure.most_common())
        shown = f" ({reasons})" if reasons else ""
        click.echo(f"unsure: {unsure.total()} of {counted(classified, 'answer')}{shown}", err=True)


@contextmanager
def _writer(output: Path | None, columns: PredictionColumns) -> Iterator[Writer]:
    from automl_pt.model.prediction_files import CsvWriter, open_file

    if output is not None:
        with open_file(output, columns) as writer:
            yield writer
    else:
        yield CsvWriter(sys.stdout.buffer, columns, to_terminal=sys.stdout.isatty())
        sys.stdout.buffer.flush()
