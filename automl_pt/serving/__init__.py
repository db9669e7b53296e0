"""Serves a finished model over HTTP: an endpoint and a page, by default on this machine only."""
