"""A search: which trials run, in which order, on which workers, and what is kept of them."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module

if "ipykernel" in sys.modules:
    # Optuna imports it, and in a notebook it warns about a widget that nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("tqdm.auto")
