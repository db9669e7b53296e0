"""`automl-pt evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from automl_pt.cli.names import load_for_model, require_dataset
from automl_pt.cli.working import load


@click.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("dataset")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "unseen", "all"]),
    help="unseen: all images but those trained on.  [test, else val, else all; unseen where some are new to MODEL]",
)
@click.option("--compare", "other", type=click.Path(path_type=Path), help="Another model, for a paired test.")
@click.option("--calibrate", is_flag=True, help="Fit when answers are unsure, and a temperature; save both.")
@click.option(
    "--max-error",
    type=float,
    help="With --calibrate: largest share of images with a sure answer that is wrong.  [0.05]",
)
@click.option("--no-temperature", "raw", is_flag=True, help="Do not use the temperature that is saved with a model.")
@click.option("--full", is_flag=True, help="Show everything that was measured.")
@click.option("--normalised", is_flag=True, help="With --full, show the confusion matrix as shares of the true class.")
@click.option("--root", help="Folder of a named dataset's files.")
@click.option("--image-column", help="A table's column of image paths.")
@click.option("--label-column", help="A table's column of labels.")
@click.option("--split-column", help="A table's column that says train, val or test.")
@click.option("--follow-links", is_flag=True, help="Include images outside the folder that links in it lead to.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:n] or mps.")
@click.option("--plugin", "plugins", multiple=True, help="A plugin file to load. May be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
def command(
    model: Path,
    dataset: str,
    split: Any,
    other: Path | None,
    calibrate: bool,
    max_error: float | None,
    raw: bool,
    full: bool,
    normalised: bool,
    device: str,
    plugins: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    follow_links: bool,
    **settings: str | None,
) -> int:
    """Measure MODEL on the labelled images of DATASET.

    MODEL is a model directory, or a run or study that holds one. DATASET is a folder, archive or table of labelled
    images, or a name from `automl-pt datasets`. The exit code is 1 if images could not be read and were skipped.

    --calibrate fits, on the validation split (or on all of data without splits, with --split all), never on test
    images: one number, the temperature, which later probabilities use; and the rule by which later answers are unsure,
    which is measured on the test split. Predicted classes do not change.
    """
    registered = load_for_model(plugins, model, *(() if other is None else (other,)))
    require_dataset(dataset, registered)

    load("automl_pt.model.evaluate", quiet=quiet or as_json)
    from automl_pt.cli.evaluate_display import print_paired, print_rule, print_scores, print_temperature, print_unsure
    from automl_pt.cli.predict_display import progress
    from automl_pt.core.files import to_json
    from automl_pt.core.text import shown_path
    from automl_pt.model.evaluate import evaluate

    given = {name: value for name, value in settings.items() if value is not None}
    found = evaluate(
        model,
        dataset,
        registered,
        split=split,
        other=other,
        calibrate=calibrate,
        max_error=max_error,
        with_temperature=not raw,
        device=device,
        progress=lambda total: progress(total, quiet=quiet or as_json),
        follow_links=follow_links,
        **given,
    )
    if as_json:
        click.echo(to_json({"model": str(model), "dataset": dataset, **found.to_dict()}))
    else:
        title = f"{shown_path(model)} on {shown_path(dataset)}, split {found.split}"
        full = full or normalised
        print_scores(title, found.scores, found.notes, found.unreadable, full=full, normalised=normalised)
        if found.paired is not None:
            print_paired(found.paired)
        if found.fitted is not None:
            print_temperature(found.fitted)
        if found.unsure is not None and found.max_error is not None:
            print_unsure(found.unsure, found.max_error)
        if found.rule is not None:
            print_rule(found.rule)
    return 1 if found.unreadable else 0
