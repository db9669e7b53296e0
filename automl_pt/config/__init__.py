"""Settings: frozen, validated on creation, with all mistakes reported at once; to and from TOML.

A field's description is its text in `--help` and the reference. Ranges are defined only here, because the command
line, config files and Python all use these classes.
"""

from __future__ import annotations

from automl_pt.config.entries import OWN_SETTINGS as OWN_SETTINGS
from automl_pt.config.fields import Augment as Augment
from automl_pt.config.make import C as C
from automl_pt.config.make import as_made as as_made
from automl_pt.config.make import make as make
from automl_pt.config.search import EXTRA_SETTINGS as EXTRA_SETTINGS
from automl_pt.config.search import SHARED as SHARED
from automl_pt.config.search import SearchConfig as SearchConfig
from automl_pt.config.settings import AUTO as AUTO
from automl_pt.config.settings import Settings as Settings
from automl_pt.config.train import PLACE as PLACE
from automl_pt.config.train import TrainConfig as TrainConfig
