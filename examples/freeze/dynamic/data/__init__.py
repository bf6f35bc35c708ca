"""Part of an example."""
