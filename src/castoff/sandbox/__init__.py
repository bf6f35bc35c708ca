"""Runs processes in isolation."""
