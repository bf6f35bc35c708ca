"""Parts that tests of castoff and of programs using it share."""
