"""The settings of one run."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import (
    Field,
)

from automl_pt.config.fields import Count, Rate
from automl_pt.config.settings import Settings

#: settings that affect where and with what a run is computed, not its results; data are compared by fingerprint
PLACE = (
    *("dataset", "device", "threads", "plugins", "trackers", "root", "download", "checkpoint_minutes", "cache_dir"),
    *("cuda_graph", "compile"),
)


class TrainConfig(Settings):
    """Settings of one run with fixed parameters."""

    backbone: str = Field("resnet18", description="a registered backbone's name")
    batch_size: Count = Field(16, description="images per optimiser step")
    lr: Rate = Field(0.001, description="initial learning rate; 0.001 is that of SGD")

    def named_values(self) -> Iterator[tuple[str, str]]:
        """Yield what the settings name, with the backbone."""
        yield from super().named_values()
        yield "backbone", self.backbone
