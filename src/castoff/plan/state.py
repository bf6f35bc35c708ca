"""What a stage has come to at some instruction: environment, arguments, config."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from castoff.plan.step import DEFAULT_PATH

if TYPE_CHECKING:
    from castoff.oci.config import ContainerConfig
    from castoff.oci.platform import Platform


@dataclass(slots=True)
class Gathered:
    """What the lines of a stage add to one by one, so that a line costs nothing for those before it.

    Attributes:
        variables: ``KEY=value``, in the order in which they were first set.
        labels: by key.
        ports: with their protocol.
        volumes: paths.
        triggers: of ONBUILD.
    """

    variables: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    ports: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    triggers: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: ContainerConfig) -> Gathered:
        """Return what a base image brings along; its triggers are none of the stage's."""
        made = cls(list(config.env), dict(config.labels), set(config.exposed_ports), set(config.volumes))
        for place, item in enumerate(made.variables):
            made._places.setdefault(item.partition("=")[0], place)
        return made

    def fork(self) -> Gathered:
        """Return what a stage that is built upon this one begins with."""
        return Gathered(
            list(self.variables), dict(self.labels), set(self.ports), set(self.volumes), [], dict(self._places)
        )

    def set_variable(self, name: str, value: str) -> None:
        """Set a variable; its place is kept where it was set before."""
        place = self._places.setdefault(name, len(self.variables))
        self.variables[place : place + 1] = [f"{name}={value}"]


@dataclass(slots=True)
class StageState:
    """The state of a stage while its instructions are taken one by one.

    Attributes:
        platform: what its steps run for.
        image_platform: what the image's config says.
        config: the image's execution parameters so far, but for what is gathered: see `whole_config`.
        env: the environment of the next step: the image's variables, and arguments on top as they were declared.
        gathered: variables, labels, ports, volumes and triggers of the image so far.
        args: arguments in use, in order of declaration, with what they had as value then.
        author: of the image.
        workdir: the working directory as a path, "/" where the config has none.
        cmd_set: whether this stage has had a CMD.
    """

    platform: Platform
    image_platform: Platform
    config: ContainerConfig
    gathered: Gathered
    author: str = ""
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    cmd_set: bool = False
    _environment: tuple[str, ...] | None = None

    @classmethod
    def of_image(
        cls, platform: Platform, image_platform: Platform, config: ContainerConfig, author: str = ""
    ) -> StageState:
        """Return the state right after FROM; a PATH is added to an environment without one."""
        gathered = Gathered.of(config)
        env = {}
        for item in config.env:
            name, _, value = item.partition("=")
            env[name] = value
        if "PATH" not in env and platform.os != "windows":
            env["PATH"] = DEFAULT_PATH
            gathered.set_variable("PATH", DEFAULT_PATH)
        workdir = config.working_dir
        if workdir and not workdir.startswith("/"):
            workdir = "/" + workdir
            config = replace(config, working_dir=workdir)
        return cls(platform, image_platform, config, gathered, author, env, {}, workdir or "/")

    def fork(self) -> StageState:
        """Return the state of a stage that is built upon this one."""
        return StageState(
            platform=self.platform,
            image_platform=self.image_platform,
            config=self.config,
            gathered=self.gathered.fork(),
            author=self.author,
            env=dict(self.env),
            args=dict(self.args),
            workdir=self.workdir,
        )

    def set_config(self, **changes: object) -> None:
        """Change fields of the config."""
        self.config = replace(self.config, **changes)  # type: ignore[arg-type]

    def whole_config(self) -> ContainerConfig:
        """Return the config with all that was gathered."""
        gathered = self.gathered
        return replace(
            self.config,
            env=tuple(gathered.variables),
            labels=tuple(sorted(gathered.labels.items())),
            exposed_ports=tuple(sorted(gathered.ports)),
            volumes=tuple(sorted(gathered.volumes)),
            on_build=tuple(gathered.triggers),
        )

    def set_argument(self, name: str, value: str) -> None:
        """Set a variable for the steps that follow, and not for the image."""
        self.env[name] = value
        self._environment = None

    def set_variable(self, name: str, value: str) -> None:
        """Set a variable for the steps that follow and for the image."""
        self.set_argument(name, value)
        self.gathered.set_variable(name, value)

    def environment(self) -> tuple[str, ...]:
        """Return the environment of the next step as ``KEY=value``."""
        if self._environment is None:
            self._environment = tuple(f"{name}={value}" for name, value in self.env.items())
        return self._environment

    def shell(self) -> tuple[str, ...]:
        """Return the shell that runs commands in shell form."""
        if self.config.shell:
            return self.config.shell
        return ("cmd", "/S", "/C") if self.image_platform.os == "windows" else ("/bin/sh", "-c")
