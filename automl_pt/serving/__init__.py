"""A finished model behind HTTP: an endpoint and a page, on this machine unless asked otherwise."""
