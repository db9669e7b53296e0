"""The trials of a study on disk, in Optuna's storage."""
