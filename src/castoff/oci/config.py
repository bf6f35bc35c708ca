"""Image configs, as in the OCI image specification, section "Image Configuration", with Docker's additions.

Docker's Healthcheck, Shell and OnBuild are kept in OCI configs too, as BuildKit keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from castoff.errors import InvalidImageError, InvalidReferenceError
from castoff.oci.digest import Digest
from castoff.oci.jsontext import Fields, dump, load_object
from castoff.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """A health check; times in nanoseconds, 0 for the default. `test` is ``("NONE",)``, ``("CMD", …)`` or
    ``("CMD-SHELL", command)``."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Healthcheck:
        """Read Docker's ``Healthcheck`` object."""
        fields = Fields(value, "health check")
        return cls(
            fields.texts("Test") or (),
            fields.integer("Interval"),
            fields.integer("Timeout"),
            fields.integer("StartPeriod"),
            fields.integer("StartInterval"),
            fields.integer("Retries"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return Docker's ``Healthcheck`` object, fields with their zero value left out."""
        value = {
            "Test": list(self.test),
            "Interval": self.interval,
            "Timeout": self.timeout,
            "StartPeriod": self.start_period,
            "StartInterval": self.start_interval,
            "Retries": self.retries,
        }
        return {key: item for key, item in value.items() if item}


def _environment(fields: Fields) -> tuple[str, ...]:
    env = fields.texts("Env") or ()
    for item in env:
        if "=" not in item:
            raise InvalidImageError(f"the variable {item!r} of the image config has no value", hint="write NAME=value")
    return env


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """The execution parameters of an image: the ``config`` object.

    A field of None is absent; ``entrypoint`` and ``cmd`` tell an empty list from an absent one. `exposed_ports` and
    `volumes` are sorted; `labels` are sorted pairs.
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()
    args_escaped: bool = False

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ContainerConfig:
        """Read a ``config`` object.

        Raises:
            InvalidImageError: a field is of another type than the specification says.
        """
        fields = Fields(value, "image config")
        health = fields.object_("Healthcheck")
        return cls(
            user=fields.text("User"),
            exposed_ports=fields.names("ExposedPorts") or (),
            env=_environment(fields),
            entrypoint=fields.texts("Entrypoint"),
            cmd=fields.texts("Cmd"),
            volumes=fields.names("Volumes") or (),
            working_dir=fields.text("WorkingDir"),
            labels=tuple(sorted((fields.text_map("Labels") or {}).items())),
            stop_signal=fields.text("StopSignal"),
            healthcheck=Healthcheck.from_json(health) if health else None,
            shell=fields.texts("Shell"),
            on_build=fields.texts("OnBuild") or (),
            args_escaped=fields.boolean("ArgsEscaped"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the ``config`` object, absent fields left out."""
        value: dict[str, Any] = {}
        if self.user:
            value["User"] = self.user
        if self.exposed_ports:
            value["ExposedPorts"] = {port: {} for port in sorted(self.exposed_ports)}
        if self.env:
            value["Env"] = list(self.env)
        if self.entrypoint is not None:
            value["Entrypoint"] = list(self.entrypoint)
        if self.cmd is not None:
            value["Cmd"] = list(self.cmd)
        if self.healthcheck:
            value["Healthcheck"] = self.healthcheck.to_json()
        if self.args_escaped:
            value["ArgsEscaped"] = True
        if self.volumes:
            value["Volumes"] = {volume: {} for volume in sorted(self.volumes)}
        if self.working_dir:
            value["WorkingDir"] = self.working_dir
        if self.on_build:
            value["OnBuild"] = list(self.on_build)
        if self.labels:
            value["Labels"] = dict(sorted(self.labels))
        if self.stop_signal:
            value["StopSignal"] = self.stop_signal
        if self.shell is not None:
            value["Shell"] = list(self.shell)
        return value

    def with_label(self, key: str, value: str) -> ContainerConfig:
        """Return a copy with one label set."""
        return replace(self, labels=tuple(sorted({**dict(self.labels), key: value}.items())))

    def with_env(self, key: str, value: str) -> ContainerConfig:
        """Return a copy with one environment variable set; its place is kept where it was set before."""
        prefix = key + "="
        env = list(self.env)
        for index, item in enumerate(env):
            if item.startswith(prefix):
                env[index] = prefix + value
                return replace(self, env=tuple(env))
        return replace(self, env=(*env, prefix + value))


@dataclass(frozen=True, slots=True)
class History:
    """One entry of an image's history; `created` is RFC 3339."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    @classmethod
    def from_json(cls, value: object) -> History:
        """Read one entry of ``history``."""
        if not isinstance(value, dict):
            raise InvalidImageError("an entry of the image's history is not a JSON object")
        fields = Fields(value, "history entry")
        return cls(
            fields.text("created"),
            fields.text("created_by"),
            fields.text("author"),
            fields.text("comment"),
            fields.boolean("empty_layer"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return one entry of ``history``, absent fields left out."""
        value: dict[str, Any] = {
            "created": self.created,
            "created_by": self.created_by,
            "author": self.author,
            "comment": self.comment,
            "empty_layer": self.empty_layer,
        }
        return {key: item for key, item in value.items() if item}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image config document."""

    platform: Platform
    config: ContainerConfig = field(default=ContainerConfig())
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> ImageConfig:
        """Read a config document.

        Raises:
            InvalidImageError: it is not valid.
        """
        top = load_object(data, "image config")
        fields = Fields(top, "image config")
        rootfs = Fields(fields.object_("rootfs", required=True) or {}, "rootfs")
        if rootfs.text("type", required=True) != "layers":
            raise InvalidImageError("the rootfs of the image config is not of type 'layers'")
        try:
            diff_ids = tuple(Digest.parse(text) for text in rootfs.texts("diff_ids", required=True) or ())
        except InvalidReferenceError as error:
            raise InvalidImageError(f"the image config has a bad diff_id: {error}") from error
        return cls(
            platform=Platform.from_json(top),
            config=ContainerConfig.from_json(fields.object_("config") or {}),
            diff_ids=diff_ids,
            history=tuple(History.from_json(item) for item in fields.array("history") or ()),
            created=fields.text("created"),
            author=fields.text("author"),
            os_features=fields.texts("os.features") or (),
        )

    def to_bytes(self) -> bytes:
        """Return the document as castoff writes it; its digest is the image's id."""
        value: dict[str, Any] = {}
        if self.created:
            value["created"] = self.created
        if self.author:
            value["author"] = self.author
        value |= self.platform.to_json()
        if self.os_features:
            value["os.features"] = list(self.os_features)
        value["config"] = self.config.to_json()
        value["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in self.diff_ids]}
        if self.history:
            value["history"] = [entry.to_json() for entry in self.history]
        return dump(value)
