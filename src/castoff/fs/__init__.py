"""Files as values, trees of them, and confined paths."""
