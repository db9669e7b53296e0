"""What every other part may use: errors, files, locks, text, seeds; it imports no other part of automl_pt."""
