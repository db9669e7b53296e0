"""`--help` in groups.

The table `GROUPS` names the settings of each group; a setting that no group names is an advanced one, so that a new
setting needs no line here.
"""

from __future__ import annotations

import click

#: group -> settings and options of the command itself, in the order shown; each is in the first group that names it
GROUPS: dict[str, tuple[str, ...]] = {
    "Common options": (
        "backbones",
        "backbone",
        "trials",
        "epochs",
        "lr",
        "batch_sizes",
        "batch_size",
        "image_size",
        "pretrained",
        "test_fraction",
        "timeout",
        "device",
        "name",
        "output",
        "seed",
        "config",
    ),
    "Data": (
        *("root", "download", "val_fraction", "max_bad", "image_column", "label_column", "split_column"),
        *("group_column", "group_by", "follow_links", "channels", "depth"),
    ),
    "Training": (
        *("weights", "freeze", "head", "augment", "augmentation", "objective", "patience", "keep", "optimizer"),
        *("schedule", "warmup_epochs", "momentum", "weight_decay", "label_smoothing", "class_weights", "sampling"),
        *("ema_decay",),
    ),
    "Search": (
        *(
            "search",
            "sampler",
            "pruner",
            "probe",
            "max_params",
            "max_ms",
            "keep_models",
            "refit",
            "ensemble",
            "average",
        ),
        *("folds", "warm_start", "warm_weights"),
        *("stop_when_flat", "report", "storage"),
    ),
    "Machine": (*("workers", "threads", "engine", "precision", "trial_timeout", "cache_dir", "compile", "cuda_graph"),),
    "Output": ("quiet", "as_json", "help"),
}
REST = "Advanced"


class GroupedCommand(click.Command):
    """A command whose `--help` shows its options in groups, the common ones first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options group by group."""
        records = {
            param.name: record for param in self.get_params(ctx) if (record := param.get_help_record(ctx)) is not None
        }
        for title, names in GROUPS.items():
            rows = [records.pop(name) for name in names if name in records]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        if records:
            with formatter.section(REST):
                formatter.write_dl(list(records.values()))
