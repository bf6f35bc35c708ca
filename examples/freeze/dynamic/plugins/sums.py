"""A plugin that only the held-out commands use."""

import hashlib


def run(text: str) -> str:
    """Return the digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
