"""Draws reports: from plain values to one self-contained HTML page. It reads no study, run or model."""
