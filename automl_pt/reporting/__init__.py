"""Reads studies and runs, and shows them as plain values and HTML pages."""
