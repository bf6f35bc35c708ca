"""Lint: what is allowed in a Dockerfile and is likely a mistake, by the rules of BuildKit's build checks."""
