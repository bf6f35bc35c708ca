"""Writes results to where they were asked for."""
