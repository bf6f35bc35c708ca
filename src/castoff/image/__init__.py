"""Images as values over a blob store."""
