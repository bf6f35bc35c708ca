"""Executes vertices: bases, RUN, COPY, and the layers made of them."""
