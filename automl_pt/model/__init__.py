"""Finished models: the model directory, prediction, scoring, export."""
