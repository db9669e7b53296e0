"""Displays of a running command: bars on a terminal, plain lines elsewhere, JSON lines on request."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.cli.console import Lines
from automl_pt.core.files import to_json
from automl_pt.core.text import counted, shown_path
from automl_pt.model.directory import INFO, read_info
from automl_pt.plugins.metrics import Metric, columns
from automl_pt.reporting.accuracy import wilson

if TYPE_CHECKING:
    from automl_pt.config import TrainConfig
    from automl_pt.data.prepare import Data
    from automl_pt.runs.start import Start
    from automl_pt.training.result import EpochResult

#: reasons in words
REASONS = {
    "completed": "all epochs done",
    "patience": "the validation loss stopped falling",
    "diverged": "the loss is not finite; lower the learning rate",
    "pruned": "others did better",
    "interrupted": "stopped on request; run the same command to continue",
    "failed": "an error ended it",
}


class TrainDisplay(Protocol):
    """What `automl-pt train` shows while it runs."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Show the progress of reading images."""

    def network(self, start: Start) -> None:
        """Show what the network starts from."""

    def started(
        self, config: TrainConfig, data: Data, *, size: int, device: str, done: list[EpochResult], said: Sequence[str]
    ) -> None:
        """Show what is trained on what, the defaults chosen for it, and the epochs done by an earlier call."""

    def step(self, done: int, batches: int) -> None:
        """Show how far the epoch is."""

    def epoch(self, result: EpochResult) -> None:
        """Show an epoch's figures."""

    def ended(self, output: Path, record: dict[str, Any], history: list[EpochResult]) -> None:
        """Show the end of the run and its model."""


@contextmanager
def train_display(
    *, quiet: bool, as_json: bool, mute: int = 0, metrics: Mapping[str, Metric] = BY_NAME
) -> Iterator[TrainDisplay]:
    """Choose the display for this terminal and these options, and restore the terminal afterwards.

    `mute` is this process's number among several; only the first prints. `metrics` are the metrics known here.
    """
    if mute or (quiet and not as_json):
        yield QuietDisplay()
    elif as_json:
        yield JsonDisplay()
    elif sys.stdout.isatty():
        with Progress(*bar_columns(), console=Lines(highlight=False), transient=True) as progress:
            yield TerminalDisplay(progress, metrics)
    else:
        yield LineDisplay(metrics=metrics)


def bar_columns() -> tuple[ProgressColumn, ...]:
    """Return the parts of a bar: description, bar, count and remaining time."""
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


def images_line(counts: Mapping[str, int], classes: int, sides: Sequence[int]) -> str:
    """Return a line with the images of each split, the classes and the image size."""
    shown = ", ".join(f"{count:,} {split}" for split, count in counts.items() if count)
    return f"images:  {shown}; {classes:,} classes; {' and '.join(map(str, sides))} px"


class QuietDisplay:
    """Shows nothing."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Show nothing."""

    def network(self, start: Start) -> None:
        """Show nothing."""

    def started(
        self, config: TrainConfig, data: Data, *, size: int, device: str, done: list[EpochResult], said: Sequence[str]
    ) -> None:
        """Show nothing."""

    def step(self, done: int, batches: int) -> None:
        """Show nothing."""

    def epoch(self, result: EpochResult) -> None:
        """Show nothing."""

    def ended(self, output: Path, record: dict[str, Any], history: list[EpochResult]) -> None:
        """Show nothing."""


class JsonDisplay(QuietDisplay):
    """Prints one JSON object a line: each epoch, then the run."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def started(
        self, config: TrainConfig, data: Data, *, size: int, device: str, done: list[EpochResult], said: Sequence[str]
    ) -> None:
        """Keep the notes on the data for the run's object."""
        self.notes = [*said, *data.notes]

    def epoch(self, result: EpochResult) -> None:
        """Print the epoch's figures."""
        print(to_json({"event": "epoch", **result.to_dict()}), flush=True)

    def ended(self, output: Path, record: dict[str, Any], history: list[EpochResult]) -> None:
        """Print where the run is, why it ended, and its best epoch."""
        best = best_epoch(history)
        found = best.to_dict() if best else None
        told = {"event": "end", "output": str(output), "reason": record["reason"], "best": found}
        print(to_json({**told, "notes": self.notes}))


class LineDisplay(QuietDisplay):
    """Prints plain lines, for logs and pipes."""

    def __init__(self, console: Console | None = None, metrics: Mapping[str, Metric] = BY_NAME) -> None:
        self.console, self.metrics = console or Console(highlight=False, soft_wrap=True), metrics
        self._has_notified = False
        self._val_images = 0

    def network(self, start: Start) -> None:
        """Print what the network starts from."""
        self._has_notified = True
        self.console.print(escape(f"network: {start.text}"))

    def started(
        self, config: TrainConfig, data: Data, *, size: int, device: str, done: list[EpochResult], said: Sequence[str]
    ) -> None:
        """Print what is trained on what, and the epochs done by an earlier call."""
        if not self._has_notified:
            self.console.print(escape(f"network: {config.backbone}, as in the run that is resumed"))
        counts = {str(split): count for split, count in data.manifest.counts().items()}
        self._val_images = counts.get("val", 0)
        self.console.print(images_line(counts, len(data.manifest.classes), (size,)))
        self.console.print(escape(f"device:  {device}"))
        epochs = counted(config.epochs, "epoch")
        by = "" if config.objective == "val_loss" else escape(f"; the best epoch by {config.objective}")
        settings = f"learning rate {config.lr:g}, batch size {config.batch_size}, at most {epochs}"
        self.console.print(f"train:   {settings}{by}")
        for note in (*said, *data.notes):
            self.console.print(escape(f"note: {note}"))
        for result in done:
            self.epoch(result)

    def epoch(self, result: EpochResult) -> None:
        """Print an epoch's figures."""
        star = " *" if result.is_best else ""
        average = "" if result.ema_val_loss is None else f" (moving average {result.ema_val_loss:.4f})"
        loss, *others = metric_texts(result.values(), self.metrics)
        self.console.print(
            f"epoch {result.epoch}: train loss {result.train_loss:.4f}, {loss}{average}, {escape(', '.join(others))}, "
            f"{result.images_per_second:.0f} images/s, data wait {100 * result.data_wait:.1f} %, "
            f"{result.seconds:.1f} s{star}"
        )
        for note in result.notes:
            self.console.print(escape(f"note: {note}"))

    def ended(self, output: Path, record: dict[str, Any], history: list[EpochResult]) -> None:
        """Print the end of the run and its model."""
        reason = record["reason"]
        objective, meaning = record["config"].get("objective", "val_loss"), REASONS[reason]
        if reason == "patience" and objective != "val_loss":
            meaning = f"{objective} stopped improving"
        self.console.print(escape(f"ended: {reason} ({meaning})"))
        if (output / INFO).exists():
            # from the model's own file, because it may be the last epoch's or the moving average's
            kept = read_info(output)[0].metrics
            weights = ", moving average of the weights" if kept.get("weights") == "ema" else ""
            values = {name[4:]: value for name, value in kept.items() if name.startswith("val_")}
            figures = ", ".join(metric_texts({**values, "loss": values.get("loss")}, self.metrics))
            self.console.print(escape(f"model: {shown_path(output)}, epoch {kept['epoch']}, {figures}{weights}"))
            between = wilson(values.get("accuracy"), self._val_images)
            if between is not None:
                low, high = (f"{100 * end:.1f}" for end in between)
                images = counted(self._val_images, "validation image")
                self.console.print(f"       95 % interval of the accuracy on {images}: {low} to {high} %")
            self.console.print(escape(f"next:  automl-pt predict {shlex.quote(shown_path(output))} IMAGES"))


class TerminalDisplay(LineDisplay):
    """Prints the same lines above a bar that moves with every step."""

    def __init__(self, progress: Progress, metrics: Mapping[str, Metric] = BY_NAME) -> None:
        super().__init__(progress.console, metrics)
        self.progress = progress
        self.bar = progress.add_task("reading images", total=None)
        self.epochs = self.done = 0

    def preparing(self, what: str, done: int, total: int) -> None:
        """Move the bar with the images read."""
        self.progress.update(self.bar, description=what, completed=done, total=total)

    def started(
        self, config: TrainConfig, data: Data, *, size: int, device: str, done: list[EpochResult], said: Sequence[str]
    ) -> None:
        """Print what is trained, and start the first epoch's bar."""
        self.epochs = config.epochs
        super().started(config, data, size=size, device=device, done=done, said=said)

    def step(self, done: int, batches: int) -> None:
        """Move the bar with the batches done."""
        description = f"epoch {self.done + 1}/{self.epochs}"
        self.progress.update(self.bar, description=description, completed=done, total=batches)

    def epoch(self, result: EpochResult) -> None:
        """Print an epoch's figures."""
        self.done = result.epoch
        super().epoch(result)


def best_epoch(history: list[EpochResult]) -> EpochResult | None:
    """Return the last epoch marked as best so far."""
    return next((result for result in reversed(history) if result.is_best), None)


def metric_texts(values: Mapping[str, float | None], metrics: Mapping[str, Metric]) -> list[str]:
    """Write an epoch's metrics, the loss first; None is null in a model's file, which stands for what is not finite."""
    shown = ((metric, values[metric.name]) for metric in columns(values, metrics))
    return [f"val {one.label} {one.text(math.nan if value is None else value)}" for one, value in shown]
