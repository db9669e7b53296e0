"""`automl-pt evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from automl_pt.model.labelled import Labelled, Scored
    from automl_pt.model.paired import Paired
    from automl_pt.model.scoring import Scores


@click.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("dataset")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), help="[test, else val, else all]")
@click.option("--compare", "other", type=click.Path(path_type=Path), help="Another model, for a paired test.")
@click.option("--root", help="Folder of a named dataset's files.")
@click.option("--image-column", help="A table's column of image paths.")
@click.option("--label-column", help="A table's column of labels.")
@click.option("--split-column", help="A table's column that says train, val or test.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:n] or mps.")
@click.option("--plugin", "plugins", multiple=True, help="A plugin file to load. May be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
def command(
    model: Path,
    dataset: str,
    split: Any,
    other: Path | None,
    device: str,
    plugins: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **settings: str | None,
) -> int:
    """Measure MODEL on the labelled images of DATASET.

    MODEL is a model directory, or a run or study that holds one. DATASET is a folder, archive or table of labelled
    images, or a name from `automl-pt datasets`. Exit code 1 says that some images could not be read and are left out.
    """
    from automl_pt.cli.predict_display import progress
    from automl_pt.model.labelled import manifest_of, open_labelled, run_model
    from automl_pt.model.load import find_model, load_model
    from automl_pt.model.paired import compare
    from automl_pt.model.scoring import score
    from automl_pt.plugins import load_plugins

    registered = load_plugins(plugins)
    loaded = load_model(model, device=device, plugins=registered)
    given = {name: value for name, value in settings.items() if value is not None}
    manifest = manifest_of(find_model(model))
    data = open_labelled(dataset, loaded.classes, registered, split=split, manifest=manifest, **given)
    with progress(len(data.labels), quiet=quiet or as_json) as advance:
        scored = run_model(loaded, data, advance)
    scores = score(scored.logits, scored.labels, loaded.classes)
    paired = None
    if other is not None:
        second = load_model(other, device=device, plugins=registered)
        paired = compare(scored, run_model(second, data.for_model(loaded.classes, second.classes)))
    (_print_json if as_json else _print_tables)((str(model), dataset, data.split), data, scored, scores, paired)
    return 1 if scored.unreadable else 0


def _print_json(
    what: tuple[str, str, str], data: Labelled, scored: Scored, scores: Scores, paired: Paired | None
) -> None:
    from automl_pt.files import to_json

    head = {**dict(zip(("model", "dataset", "split"), what, strict=True)), "notes": list(data.notes)}
    unreadable = [{"name": name, "reason": reason} for name, reason in scored.unreadable]
    comparison = paired.to_dict() if paired is not None else None
    click.echo(to_json({**head, **scores.to_dict(), "unreadable": unreadable, "comparison": comparison}))


def _print_tables(
    what: tuple[str, str, str], data: Labelled, scored: Scored, scores: Scores, paired: Paired | None
) -> None:
    from automl_pt.cli.evaluate_display import print_paired, print_scores

    model, dataset, split = what
    print_scores(f"{model} on {dataset}, split {split}", scores, data.notes, scored.unreadable)
    if paired is not None:
        print_paired(paired)
