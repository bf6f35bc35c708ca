"""Where registries are and how they are spoken to: mirrors, insecure and blocked ones, certificates.

One file of castoff's own (``registries.toml``) and the files of podman and skopeo (``registries.conf``), in the same
form; and the folders in which docker and podman keep certificates (``certs.d/HOST[:PORT]``).

References: containers-registries.conf(5), containers-certs.d(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from castoff.errors import RegistryError, UsageError
from castoff.registry.credentials import DOCKER_IO
from castoff.registry.proxies import is_loopback
from castoff.registry.transport import TlsOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from castoff.oci.reference import Reference

DOCKER_ADDRESS = "registry-1.docker.io"
"""The host that answers for docker.io."""
_MAX_FILE = 1 << 20
_FROM_MIRROR = ("all", "digest-only", "tag-only")


@dataclass(frozen=True, slots=True)
class Location:
    """A server, and the part of its name space that holds what is looked for.

    Attributes:
        host: ``host[:port]``.
        path: what stands before the repository's name; "" for nothing.
        insecure: whether plain http, and certificates that can't be verified, are accepted.
        use: of a mirror: ``all``, ``digest-only`` or ``tag-only``.
    """

    host: str
    path: str = ""
    insecure: bool = False
    use: str = "all"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one table ``[[registry]]`` says.

    Attributes:
        prefix: a registry, or the beginning of a repository in one: ``host/name``; ``*.host`` means all hosts below.
        location: where it really is; None where the prefix itself says so.
        mirrors: tried first, in this order, when something is pulled.
        insecure: whether plain http, and certificates that can't be verified, are accepted.
        blocked: whether nothing may be asked of it.
        tls: further certificates.
    """

    prefix: str
    location: Location | None = None
    mirrors: tuple[Location, ...] = ()
    insecure: bool = False
    blocked: bool = False
    tls: TlsOptions = field(default_factory=TlsOptions)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one call says of registries, before every file.

    Attributes:
        file: path of a ``registries.toml`` to read instead of all others; "" for none.
        insecure: hosts, such as ``host:5000``, that may speak plain http.
        mirrors: pairs of a registry and the location of its mirror.
        authorities: paths of PEM files with further certificate authorities, for all registries.
    """

    file: str = ""
    insecure: tuple[str, ...] = ()
    mirrors: tuple[tuple[str, str], ...] = ()
    authorities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server that can be asked for a repository.

    Attributes:
        registry: under which its credentials are kept: ``docker.io``, ``host`` or ``host:port``.
        host: ``host[:port]`` to connect to.
        repository: the name of the repository there.
        schemes: ``https``, ``http``, or both in the order in which they are tried.
        tls: how it is checked.
        is_mirror: whether it stands in for the registry.
    """

    registry: str
    host: str
    repository: str
    schemes: tuple[str, ...]
    tls: TlsOptions
    is_mirror: bool = False


class RegistryConfig:
    """What is known of registries. Immutable."""

    def __init__(
        self, rules: Iterable[Rule] = (), certificates: Iterable[str] = (), overrides: Overrides | None = None
    ) -> None:
        """Take rules (of equally long prefixes the first counts), folders ``certs.d``, and what one call says."""
        self._rules = tuple(rules)
        self._certificates = tuple(certificates)
        self._overrides = overrides or Overrides()

    @classmethod
    def load(cls, environment: Mapping[str, str], overrides: Overrides | None = None) -> RegistryConfig:
        """Read the files that an environment points to; those that are not there count as empty.

        Raises:
            RegistryError: a file can't be read, or says something that makes no sense.
        """
        given = overrides or Overrides()
        named = given.file or environment.get("CASTOFF_REGISTRIES", "")
        paths = [named] if named else _files(environment)
        rules = [rule for path in paths for rule in read_rules(path, must_exist=path == named)]
        return cls(rules, _certificate_folders(environment), given)

    def endpoints(self, reference: Reference, *, push: bool = False) -> tuple[Endpoint, ...]:
        """Return the servers to ask, in order; for a push only the registry itself.

        Raises:
            RegistryError: the registry is blocked.
        """
        name = f"{reference.registry}/{reference.repository}"
        rule = self._rule(name)
        if rule is not None and rule.blocked:
            raise RegistryError(
                f"the registry {reference.registry} is blocked by the configuration of this machine",
                hint="see blocked = true in registries.toml or registries.conf",
            )
        found = []
        if not push:
            for registry, mirror in self._overrides.mirrors:
                if registry == reference.registry:
                    found.append(self._at(_location(mirror, "--registry-mirror"), reference.repository, rule, True))
            pinned = "digest-only" if reference.digest is not None else "tag-only"
            mirrors = rule.mirrors if rule is not None else ()
            found += [self._at(item, _below(rule, name), rule, True) for item in mirrors if item.use in ("all", pinned)]
        if rule is not None and rule.location is not None:
            found.append(self._at(rule.location, _below(rule, name), rule, False))
        else:
            own = Location(reference.registry, insecure=rule is not None and rule.insecure)
            found.append(self._at(own, reference.repository, rule, False))
        return tuple(found)

    def registry(self, host: str) -> Endpoint:
        """Return the server of a registry itself, for a login.

        Raises:
            RegistryError: it is blocked.
        """
        from castoff.oci.reference import Reference

        endpoint = self.endpoints(Reference(host, "castoff"), push=True)[-1]
        return replace(endpoint, repository="")

    def _rule(self, name: str) -> Rule | None:
        best: tuple[int, Rule] | None = None
        for rule in self._rules:
            length = _matched(rule.prefix, name)
            if length and (best is None or length > best[0]):
                best = (length, rule)
        return None if best is None else best[1]

    def _at(self, location: Location, below: str, rule: Rule | None, is_mirror: bool) -> Endpoint:
        registry = location.host
        host = DOCKER_ADDRESS if registry == DOCKER_IO else registry
        own = not is_mirror and rule is not None
        tls = self._tls(registry, rule.tls if own and rule is not None else TlsOptions())
        insecure = location.insecure or registry in self._overrides.insecure
        if rule is not None and not is_mirror:
            insecure = insecure or rule.insecure
        repository = "/".join(filter(None, (location.path, below)))
        schemes: tuple[str, ...] = ("https",)
        if not tls.authorities and not tls.certificate and is_loopback(_name(host)):
            # As in Docker, what this machine itself serves need not be secured.
            schemes, tls = ("http", "https"), replace(tls, verify=False)
        if insecure:
            schemes, tls = ("https", "http"), replace(tls, verify=False)
        return Endpoint(registry, host, repository, schemes, tls, is_mirror)

    def _tls(self, host: str, given: TlsOptions) -> TlsOptions:
        """Return the options with the certificates that folders hold for a host."""
        authorities = [*given.authorities, *self._overrides.authorities]
        certificate, key = given.certificate, given.key
        for folder in self._certificates:
            try:
                names = sorted(os.listdir(f"{folder}/{host}"))
            except OSError:
                continue
            for name in names:
                path = f"{folder}/{host}/{name}"
                if name.endswith(".crt"):
                    authorities.append(path)
                elif name.endswith(".cert") and not certificate and f"{name[:-5]}.key" in names:
                    certificate, key = path, f"{path[:-5]}.key"
        return replace(given, authorities=tuple(authorities), certificate=certificate, key=key)


def _name(host: str) -> str:
    """Return a host without its port, and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _matched(prefix: str, name: str) -> int:
    """Return how much of a repository's full name a prefix covers; 0 where it is another one."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        return len(prefix) - 1 if host.endswith(prefix[1:]) and len(host) >= len(prefix) else 0
    return len(prefix) if name == prefix or name.startswith(f"{prefix}/") else 0


def _below(rule: Rule | None, name: str) -> str:
    """Return the part of a repository's full name that a rule's prefix leaves."""
    if rule is None or rule.prefix.startswith("*."):
        return name.partition("/")[2]
    return name[len(rule.prefix) :].lstrip("/")


def _files(environment: Mapping[str, str]) -> list[str]:
    """Return the files to read, castoff's own first; of each kind the user's, else the machine's."""
    home = environment.get("HOME", "")
    config = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    own = [f"{config}/castoff/registries.toml"] if config else []
    found = [_first([*own, "/etc/castoff/registries.toml"])]
    given = environment.get("CONTAINERS_REGISTRIES_CONF")
    if given:
        found.append(given)
    else:
        user = [f"{config}/containers/registries.conf"] if config else []
        found.append(_first([*user, "/etc/containers/registries.conf"]))
        folders = [f"{config}/containers/registries.conf.d"] if config else []
        for folder in [*folders, "/etc/containers/registries.conf.d"]:
            try:
                names = sorted(os.listdir(folder), reverse=True)
            except OSError:
                continue
            # A later file of a folder overrides an earlier one, and the folder overrides the file.
            found[1:1] = [f"{folder}/{name}" for name in names if name.endswith(".conf")]
    return [path for path in found if path]


def _first(paths: Iterable[str]) -> str:
    return next((path for path in paths if os.path.exists(path)), "")


def _certificate_folders(environment: Mapping[str, str]) -> list[str]:
    home = environment.get("HOME", "")
    config = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    own = [f"{config}/castoff/certs.d", f"{config}/containers/certs.d"] if config else []
    return [*own, "/etc/castoff/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"]


def read_rules(path: str, *, must_exist: bool = False) -> list[Rule]:
    """Return what a file says of registries.

    Raises:
        RegistryError: it can't be read, or says something that makes no sense.
    """
    import tomllib

    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE)
    except FileNotFoundError as error:
        if not must_exist:
            return []
        raise UsageError(f"there is no file {path} to configure registries") from error
    except OSError as error:
        raise RegistryError(f"{path} can't be read: {(error.strerror or '').lower()}") from error
    try:
        value = tomllib.loads(data.decode("utf-8"))
        rules = [_rule_of(table, os.path.dirname(path)) for table in _tables(value, "registry")]
        return rules + _first_version(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise RegistryError(f"{path} is no configuration of registries: {error}") from error


def _tables(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tables = value.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise TypeError(f"{key} is no list of tables, as [[registry]] and [[registry.mirror]] are")
    return tables


def _rule_of(table: dict[str, Any], folder: str) -> Rule:
    where, prefix = _text(table, "location"), _text(table, "prefix")
    prefix = prefix or where
    if not prefix:
        raise ValueError("a [[registry]] has neither a prefix nor a location")
    if "*" in prefix and not (prefix.startswith("*.") and "*" not in prefix[2:] and "/" not in prefix):
        raise ValueError(f"the prefix {prefix!r} has a * elsewhere than in front of a host")
    insecure = _flag(table, "insecure")
    digest_only = _flag(table, "mirror-by-digest-only")
    mirrors = []
    for entry in _tables(table, "mirror"):
        use = _text(entry, "pull-from-mirror") or ("digest-only" if digest_only else "all")
        if use not in _FROM_MIRROR:
            raise ValueError(f"pull-from-mirror = {use!r} is none of {', '.join(_FROM_MIRROR)}")
        location = _location(_text(entry, "location"), "[[registry.mirror]]")
        mirrors.append(replace(location, insecure=_flag(entry, "insecure"), use=use))
    elsewhere: Location | None = None
    if where and where != prefix:
        elsewhere = _location(where, "[[registry]]")
    tls = TlsOptions(
        authorities=tuple(os.path.join(folder, name) for name in _texts(table, "ca")),
        certificate=_path(table, "client-cert", folder),
        key=_path(table, "client-key", folder),
    )
    return Rule(prefix.rstrip("/"), elsewhere, tuple(mirrors), insecure, _flag(table, "blocked"), tls)


def _first_version(value: dict[str, Any]) -> list[Rule]:
    """Return what the oldest form of registries.conf says: lists of insecure and blocked hosts."""
    section = value.get("registries")
    if not isinstance(section, dict):
        return []
    hosts: dict[str, Rule] = {}
    for key in ("insecure", "block"):
        table = section.get(key)
        for host in _texts(table, "registries") if isinstance(table, dict) else ():
            rule = hosts.get(host, Rule(host))
            hosts[host] = replace(rule, insecure=True) if key == "insecure" else replace(rule, blocked=True)
    return list(hosts.values())


def _location(text: str, what: str) -> Location:
    """Read ``host[:port][/path]``, with a scheme or not.

    Raises:
        UsageError: it is not one.
    """
    from castoff.errors import InvalidReferenceError
    from castoff.oci.reference import check_registry

    scheme, mark, rest = text.partition("://")
    host, _, path = (rest if mark else text).partition("/")
    try:
        check_registry(host)
    except InvalidReferenceError as error:
        raise UsageError(f"{what}: {text!r} is not the address of a registry", hint=error.hint) from error
    if mark and scheme not in ("http", "https"):
        raise UsageError(f"{what}: {text!r} is neither http nor https")
    return Location(host, path.strip("/"), insecure=scheme == "http" and bool(mark))


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise TypeError(f"{key} is no string")
    return value


def _texts(table: dict[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{key} is no list of strings")
    return tuple(value)


def _flag(table: dict[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise TypeError(f"{key} is neither true nor false")
    return value


def _path(table: dict[str, Any], key: str, folder: str) -> str:
    text = _text(table, key)
    return os.path.join(folder, text) if text else ""
