"""Shows what an image must not contain: faults found by reading its documents and layers, never by running anything."""
