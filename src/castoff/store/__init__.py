"""The state folder: blobs, tags, temporary files."""
