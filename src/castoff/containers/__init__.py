"""Runs images."""
