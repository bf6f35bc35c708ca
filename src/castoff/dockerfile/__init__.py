"""The Dockerfile language: text in, typed instructions out."""
