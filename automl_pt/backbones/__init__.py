"""From a registered backbone to a network: built, its weights loaded, its parameters grouped."""
