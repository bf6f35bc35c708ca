"""Time the same builds on castoff and on every other builder found on this machine."""
