"""The plots of a report, from its plain values. They contain no class or file names, which the page's text has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from automl_pt.reporting.html.theme import ACCENT, BAD, FAINT, INK, LINE, plot, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

#: a colour scale ends at this multiple of the median loss, because one very high loss would hide the other differences
CEILING = 4.0


def curves(section: Mapping[str, Any], name: str = "curves") -> str:
    """Draw each trial's validation loss over the epochs; ranking losses are another measure and are not drawn."""
    with plot(5.4, 3.1) as (figure, axes):
        shown = [loss for curve in section["curves"] for _, loss in curve["points"]]
        _limit(axes, [loss for loss in shown if loss is not None])
        for curve in sorted(section["curves"], key=lambda curve: (curve["best"], curve["complete"])):
            _curve(axes, curve)
        axes.set_xlabel("epoch")
        epochs = [epoch for curve in section["curves"] for epoch, _ in curve["points"]]
        axes.set_xlim(0, 1.03 * max(epochs, default=1))
        axes.set_ylabel("validation loss")
        _whole_numbers(axes.xaxis)
        return to_svg(figure, name)


def _curve(axes: Axes, curve: Mapping[str, Any]) -> None:
    best, complete = curve["best"], curve["complete"]
    colour, width = (ACCENT, 2.4) if best else (INK, 1.1) if complete else (FAINT, 0.9)
    order = 3 if best else 2
    points = [(epoch, loss) for epoch, loss in curve["points"] if loss is not None]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, alpha=1 if best else 0.65, zorder=order)
        end = "o" if complete else "x"
        axes.plot(*points[-1], marker=end, markersize=5 if best else 4, color=colour, zorder=order)


def run_curves(section: Mapping[str, Any], name: str = "curves") -> str:
    """Draw one run's training and validation loss over the epochs, and mark the epoch whose weights were kept."""
    with plot(5.4, 3.0) as (figure, axes):
        epochs = section["epochs"]
        for name, label, colour, style in (
            ("train_loss", "training", FAINT, "--"),
            ("val_loss", "validation", ACCENT, "-"),
        ):
            points = [(one["epoch"], one[name]) for one in epochs if one[name] is not None]
            if points:
                axes.plot(*zip(*points, strict=True), style, marker=".", color=colour, label=label)
        _limit(axes, [one[name] for one in epochs for name in ("train_loss", "val_loss") if one[name] is not None])
        best = section["best"]
        if best is not None:
            axes.plot(best["epoch"], best["val_loss"], "o", markersize=9, markerfacecolor="none", color=INK)
        axes.set_xlabel("epoch")
        axes.set_xlim(0, 1.03 * len(epochs))
        axes.set_ylabel("loss")
        _whole_numbers(axes.xaxis)
        axes.legend(frameon=False)
        return to_svg(figure, name)


def ceiling(losses: Sequence[float]) -> float:
    """Return the end of an axis for these ascending losses, below outliers by Tukey's rule."""
    low, high = (losses[round(share * (len(losses) - 1))] for share in (0.25, 0.75))
    return min(losses[-1], max(high + 1.5 * (high - low), 1.05 * high))


def _limit(axes: Axes, losses: Sequence[float]) -> None:
    finite = sorted(loss for loss in losses if math.isfinite(loss))
    if not finite:
        return
    top = ceiling(finite)
    low = finite[0]
    if low > 0 and top / low > 8:
        axes.set_yscale("log")
        _plain_ticks(axes, "y")
        axes.set_ylim(low / 1.2, top * 1.2)
    else:
        margin = 0.06 * (top - low) or 0.1
        axes.set_ylim(max(0.0, low - margin) if low >= 0 else low - margin, top + margin)


def space(section: Mapping[str, Any]) -> str:
    """Draw the learning rates and batch sizes tried, coloured by loss: dark is low; a cross has no finite loss."""
    from matplotlib.colors import LogNorm, Normalize

    with plot(4.8, 3.4) as (figure, axes):
        axes.set_xscale("log")
        axes.set_yscale("log", base=2)
        points = [point for point in section["points"] if point["loss"] is not None]
        lost = [point for point in section["points"] if point["loss"] is None]
        if lost:
            axes.plot([p["lr"] for p in lost], [p["batch_size"] for p in lost], "x", color=BAD, linestyle="none")
        if points:
            losses = sorted(point["loss"] for point in points)
            low, high = losses[0], min(losses[-1], CEILING * losses[len(losses) // 2])
            norm = LogNorm(low, high) if 0 < low < high else Normalize(low, high)
            x, y = ([point[name] for point in points] for name in ("lr", "batch_size"))
            drawn = axes.scatter(
                x, y, c=[p["loss"] for p in points], cmap="viridis", norm=norm, s=62, edgecolors=LINE, linewidths=0.8
            )
            bar = figure.colorbar(
                drawn, ax=axes, label=section["measure"], extend="max" if high < losses[-1] else "neither"
            )
            bar.outline.set_visible(False)
            _plain_ticks(bar.ax, "y", values=[low, math.sqrt(low * high) if low > 0 else (low + high) / 2, high])
        for point in section["points"]:
            if point["best"]:
                axes.plot(
                    point["lr"],
                    point["batch_size"],
                    "o",
                    markersize=13,
                    markerfacecolor="none",
                    color=INK,
                    markeredgewidth=1.6,
                )
        _plain_ticks(axes, "x")
        _plain_ticks(axes, "y", values=sorted({point["batch_size"] for point in section["points"]}))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("batch size")
        return to_svg(figure, "space")


def losses(section: Mapping[str, Any]) -> str:
    """Draw the validation loss over the learning rate of trials of several studies, each as its study's number."""
    with plot(5.4, 3.4) as (figure, axes):
        axes.set_xscale("log")
        points = section["points"]
        _limit(axes, [point["loss"] for point in points])
        top = axes.get_ylim()[1]
        # a colour for each of the first studies; beyond those the number alone tells them apart
        colours = (ACCENT, BAD, INK, FAINT)
        for point in points:
            colour = colours[(point["study"] - 1) % len(colours)]
            place = (point["lr"], min(point["loss"], top))
            if point["best"]:
                axes.plot(*place, "o", markersize=14, markerfacecolor="none", color=colour, markeredgewidth=1.4)
            axes.text(*place, str(point["study"]), color=colour, ha="center", va="center", fontsize=9)
        rates = sorted(point["lr"] for point in points)
        low, high = rates[0], rates[-1]
        axes.set_xlim(low / 1.3, high * 1.3)
        _plain_ticks(axes, "x", values=[low, math.sqrt(low * high), high])
        axes.set_xlabel("learning rate")
        axes.set_ylabel("validation loss")
        return to_svg(figure, "losses")


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def _plain_ticks(axes: Axes, which: str, *, values: Sequence[float] | None = None) -> None:
    """Write ticks as plain numbers (0.001 rather than a power of ten), and no minor ones."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_minor_locator(NullLocator())
    if values is not None:
        axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"))


def forecast(section: Mapping[str, Any]) -> str:
    """Draw the accuracy of a linear head over the images it was fitted to, and the extrapolation to twice as many."""
    with plot(4.8, 3.0) as (figure, axes):
        axes.set_xscale("log", base=2)
        x, y = ([point[name] for point in section["points"]] for name in ("images", "accuracy"))
        axes.plot(x, [100 * share for share in y], "o-", color=ACCENT)
        if section["twice"] is not None:
            ends = ([x[-1], 2 * x[-1]], [100 * y[-1], 100 * section["twice"]])
            axes.plot(*ends, "--", color=FAINT)
            axes.plot(ends[0][1], ends[1][1], "o", color=FAINT, markerfacecolor="none")
        ticks = [*x, *([2 * x[-1]] if section["twice"] is not None else [])]
        _plain_ticks(axes, "x", values=ticks)
        axes.set_xlabel("training images")
        axes.set_ylabel("accuracy in %")
        return to_svg(figure, "forecast")


def reliability(section: Mapping[str, Any]) -> str:
    """Draw how often the model is right against how sure it is; the area of a dot is proportional to its images."""
    with plot(4.8, 4.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=1)
        bins = section["bins"]
        images = max(one["images"] for one in bins)
        for one in bins:
            axes.plot([one["confidence"]] * 2, one["interval"], color=ACCENT, linewidth=1.2, alpha=0.55)
        sizes = [18 + 160 * one["images"] / images for one in bins]
        x, y = ([one[name] for one in bins] for name in ("confidence", "accuracy"))
        axes.scatter(x, y, s=sizes, color=ACCENT, edgecolors=LINE, zorder=3)
        axes.set_xlim(-0.02, 1.04)
        axes.set_ylim(-0.02, 1.04)
        axes.set_aspect("equal")
        axes.set_xlabel("how sure the model is")
        axes.set_ylabel("how often it is right")
        return to_svg(figure, "reliability")


def matrix(counts: Sequence[Sequence[int]], *, normalised: bool) -> str:
    """Draw a large confusion matrix, true classes down, predicted across, by number; blue is right, red wrong."""
    import numpy as np

    values = np.asarray(counts, np.float64)
    rows = values.sum(axis=1, keepdims=True)
    shares = np.divide(values, rows, out=np.zeros_like(values), where=rows > 0)
    strength = shares if normalised else values / max(1.0, values.max())
    pixels = np.zeros((*values.shape, 4), np.float32)
    pixels[..., :3] = np.array([224, 72, 48]) / 255
    diagonal = np.arange(len(values))
    pixels[diagonal, diagonal, :3] = np.array([64, 124, 230]) / 255
    # a single mistake among many images must be visible
    pixels[..., 3] = np.where(values > 0, 0.3 + 0.7 * np.sqrt(strength), 0)
    name = "shares" if normalised else "counts"
    with plot(4.8, 4.6) as (figure, axes):
        axes.imshow(pixels, interpolation="none")
        axes.grid(visible=False)
        axes.set_xlabel("predicted class, by number")
        axes.set_ylabel("true class, by number")
        _whole_numbers(axes.xaxis)
        _whole_numbers(axes.yaxis)
        return to_svg(figure, name)
