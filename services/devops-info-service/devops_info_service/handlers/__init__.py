"""What answers the routes: one module each."""
