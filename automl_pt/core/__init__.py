"""Errors, files, locks, text and seeds, for use by every other part; imports no other part of automl_pt."""
