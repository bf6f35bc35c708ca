"""Shows what images and stages are made of."""
