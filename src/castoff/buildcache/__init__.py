"""The build cache as it travels: a document of records, the places where it is kept, blobs that come when needed."""
