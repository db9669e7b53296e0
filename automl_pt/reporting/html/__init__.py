"""Draws reports: from plain values to one HTML page that needs nothing else. It reads no study, run or model."""
