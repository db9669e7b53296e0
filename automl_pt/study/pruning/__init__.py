"""Decides which trials continue: the default rule of rungs, and Optuna's pruners behind the same interface."""
