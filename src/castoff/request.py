"""What a build is asked to do, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.buildcache.spec import CacheSource, CacheTarget
    from castoff.export.parse import Annotation, OutputSpec
    from castoff.layer.tarreader import Readable
    from castoff.ops.registrybases import PullPolicy
    from castoff.registry.config import Overrides

PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Variables that steps get from the caller's environment, as Docker's client passes them on; no key holds them."""


@dataclass(frozen=True, slots=True)
class SecretSource:
    """A secret that steps may mount: its id, and a host file or the bytes of an environment variable.

    `value` never appears in `repr`.
    """

    id: str
    path: str | None = None
    value: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SshSource:
    """An ssh agent that steps may use: its id, and host paths of one agent's socket, or of key files."""

    id: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """All that one build is asked to do; every value as the command line gives it.

    Attributes:
        store: folder of the store.
        context: folder of the build context, or the URL of an archive, a Dockerfile or a git repository; "" for none
            (a lone Dockerfile, or `context_stream`).
        context_stream: a tar archive that is the build context, compressed or not, to be read once.
        dockerfile: host path of the Dockerfile; "" for the one in the context. Ignored where `dockerfile_data` is set.
            A relative one counts from the context where that has to be fetched.
        dockerfile_data: the Dockerfile itself, where it came on standard input.
        tags: references to give to the image.
        target: name or number of the stage to build; "" for the last one.
        build_args: pairs of ``--build-arg``; a value of None takes it from `environment`.
        build_contexts: pairs of ``--build-context``.
        labels: pairs of ``--label``.
        annotations: those of ``--annotation``.
        secrets: sources of ``--secret``.
        ssh: sources of ``--ssh``.
        no_cache: run every step anew.
        no_cache_filter: names of the stages whose steps run anew.
        platforms: platforms to build for; empty for this machine's.
        outputs: where the result goes, besides the store.
        pull: when a registry is asked for a base: ``missing`` (where the store lacks it), ``always`` or ``never``.
        registries: what this build says of registries, before the caller's files of configuration; None for nothing.
        cache_from: caches from elsewhere whose records count as well.
        cache_to: where the build's cache is left.
        network: network mode of RUN steps: ``default``, ``host`` or ``none``.
        allow: entitlements: ``security.insecure``; ``network.host`` always is.
        add_hosts: pairs of (name, address) for the steps' /etc/hosts.
        ulimits: (name, soft, hard) for the steps; -1 for no limit.
        shm_size: size of the steps' /dev/shm in bytes; 0 for the default.
        epoch: seconds that clamp the times in the image; None for castoff's default.
        reproducible: False keeps the times that files have.
        environment: the caller's environment, for proxies, secrets, and where files of credentials and registries are.
        on_dockerfile: given the Dockerfile of a context that had to be fetched, for messages that show its lines.
        stdout: standard output, for outputs with ``dest=-``.
    """

    store: str
    context: str
    dockerfile: str = ""
    dockerfile_data: bytes | None = field(default=None, repr=False)
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: tuple[tuple[str, str | None], ...] = ()
    build_contexts: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[Annotation, ...] = ()
    secrets: tuple[SecretSource, ...] = ()
    ssh: tuple[SshSource, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    pull: PullPolicy = "missing"
    registries: Overrides | None = None
    cache_from: tuple[CacheSource, ...] = ()
    cache_to: tuple[CacheTarget, ...] = ()
    network: str = "default"
    allow: tuple[str, ...] = ()
    add_hosts: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()
    shm_size: int = 0
    epoch: int | None = None
    reproducible: bool = True
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    context_stream: Readable | None = field(default=None, repr=False, compare=False)
    on_dockerfile: Callable[[bytes], None] | None = field(default=None, repr=False, compare=False)
    stdout: BinaryIO | None = field(default=None, repr=False, compare=False)
