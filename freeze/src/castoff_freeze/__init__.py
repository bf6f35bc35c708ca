"""The compile step for Python services: a minimal runtime tree out of a builder stage."""

__version__ = "0.1.0"
