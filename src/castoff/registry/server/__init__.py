"""A registry: the distribution specification, version 1.1, served from a folder or from memory."""

from __future__ import annotations

from castoff.registry.server.api import Limits, RegistryApi
from castoff.registry.server.listener import Access, RegistryServer
from castoff.registry.server.repositories import Repositories, in_folder, in_memory

__all__ = ["Access", "Limits", "RegistryApi", "RegistryServer", "Repositories", "in_folder", "in_memory"]
