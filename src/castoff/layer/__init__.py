"""Layers: tar streams, compression, creation, application."""
