"""The finished model: its directory, predicting, scoring, exporting."""
