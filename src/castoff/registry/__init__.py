"""Registries over the OCI distribution protocol: the client, its credentials and its configuration."""
