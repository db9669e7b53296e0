"""Which trials go on: the default rule of rungs, and Optuna's own pruners behind the same interface."""
