"""The client: what a program opens once to speak to any registry.

``RegistryClient.open_(environment)`` gives one, a context manager; ``client.repository(reference)`` a repository, whose
methods ask.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from castoff.registry.backoff import RetryPolicy
from castoff.registry.config import RegistryConfig
from castoff.registry.credentials import AnonymousKeychain, FixedKeychain
from castoff.registry.failure import NotFoundError
from castoff.registry.host import Call, RegistryHost
from castoff.registry.keychain import FileKeychain, credential_files
from castoff.registry.repository import Repository
from castoff.registry.transport import UrllibTransport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from castoff.oci.reference import Reference
    from castoff.registry.config import Endpoint, Overrides
    from castoff.registry.credentials import Credentials, Keychain
    from castoff.registry.transport import Transport


class RegistryClient:
    """Speaks to registries. Safe for several threads; holds connections and tokens until it is closed."""

    def __init__(
        self,
        config: RegistryConfig,
        keychain: Keychain | None = None,
        transport: Transport | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        """Take the parts; without a keychain every request is anonymous."""
        self._config = config
        self._keychain = keychain or AnonymousKeychain()
        self._transport = transport or UrllibTransport({})
        self._policy = policy or RetryPolicy()
        self._hosts: dict[Endpoint, RegistryHost] = {}
        self._lock = threading.Lock()

    @classmethod
    def open_(
        cls,
        environment: Mapping[str, str],
        overrides: Overrides | None = None,
        keychain: Keychain | None = None,
        policy: RetryPolicy | None = None,
    ) -> RegistryClient:
        """Return a client for a caller with this environment: its files of configuration, credentials and proxies.

        Args:
            environment: of the caller: HOME, DOCKER_CONFIG, HTTPS_PROXY and so on; nothing else is looked at.
            overrides: what one call says of registries.
            keychain: credentials to use instead of those in the caller's files.
            policy: how often requests are tried, and what ends them.

        Raises:
            RegistryError: a file of configuration can't be read.
        """
        files = FileKeychain(credential_files(environment), environment)
        config = RegistryConfig.load(environment, overrides)
        return cls(config, keychain or files, UrllibTransport(environment), policy)

    def repository(self, reference: Reference, *, push: bool = False) -> Repository:
        """Return a repository; for a push without its mirrors. Nothing is asked yet.

        Raises:
            RegistryError: the registry is blocked.
        """
        endpoints = self._config.endpoints(reference, push=push)
        return Repository(reference, [self._host(endpoint) for endpoint in endpoints])

    def check_credentials(self, registry: str, credentials: Credentials) -> None:
        """Ask a registry whether it accepts some credentials.

        Raises:
            UnauthorizedError: it does not.
            RegistryError: it can't be reached, or is no registry.
        """
        endpoint = self._config.registry(registry)
        keychain = FixedKeychain(registry, credentials)
        host = RegistryHost(endpoint, self._transport, keychain, self._policy)
        try:
            host.send(Call("GET", "/v2/", f"log in to {registry}")).__exit__(None, None, None)
        except NotFoundError as error:
            error.hint = f"{registry} is reachable, and is no registry"
            raise

    def cancel(self) -> None:
        """End everything that is under way, in whichever thread: it raises `CanceledTransferError`. Idempotent."""
        self._policy.canceled.set()
        self._transport.close()

    def close(self) -> None:
        """End all connections. Idempotent."""
        self._transport.close()

    def _host(self, endpoint: Endpoint) -> RegistryHost:
        with self._lock:
            host = self._hosts.get(endpoint)
            if host is None:
                host = self._hosts[endpoint] = RegistryHost(endpoint, self._transport, self._keychain, self._policy)
            return host

    def __enter__(self) -> RegistryClient:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all connections; where an error leaves the block, whatever is still under way in other threads too."""
        if error is not None:
            self.cancel()
        self.close()
