"""What every other part may use: errors, files, locks, text, seeds; it imports no other part of automl_pt."""

__version__ = "0.1.0"
