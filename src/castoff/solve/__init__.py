"""Finds out what must run: vertices, cache keys, cache records. Knows nothing of containers."""
