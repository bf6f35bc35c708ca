"""Base images assembled from distribution packages, pinned by lock files."""
