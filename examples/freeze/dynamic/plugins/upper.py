"""A plugin that the smoke description uses."""


def run(text: str) -> str:
    """Return a text in upper case."""
    return text.upper()
