"""Build contexts: the files that a build may copy."""
