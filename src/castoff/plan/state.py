"""What a stage has come to at some instruction: environment, arguments, config."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from castoff.plan.step import DEFAULT_PATH

if TYPE_CHECKING:
    from castoff.oci.config import ContainerConfig
    from castoff.oci.platform import Platform


@dataclass(slots=True)
class StageState:
    """The state of a stage while its instructions are taken one by one.

    Attributes:
        platform: what its steps run for.
        image_platform: what the image's config says.
        config: the image's execution parameters so far.
        env: the environment of the next step: the image's variables, and arguments on top as they were declared.
        args: arguments in use, in order of declaration, with what they had as value then.
        author: of the image.
        workdir: the working directory as a path, "/" where the config has none.
        cmd_set: whether this stage has had a CMD.
    """

    platform: Platform
    image_platform: Platform
    config: ContainerConfig
    author: str = ""
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    cmd_set: bool = False

    @classmethod
    def of_image(
        cls, platform: Platform, image_platform: Platform, config: ContainerConfig, author: str = ""
    ) -> StageState:
        """Return the state right after FROM; a PATH is added to an environment without one."""
        env = {}
        for item in config.env:
            name, _, value = item.partition("=")
            env[name] = value
        if "PATH" not in env and platform.os != "windows":
            env["PATH"] = DEFAULT_PATH
            config = replace(config, env=(*config.env, f"PATH={DEFAULT_PATH}"))
        workdir = config.working_dir
        if workdir and not workdir.startswith("/"):
            workdir = "/" + workdir
            config = replace(config, working_dir=workdir)
        return cls(platform, image_platform, replace(config, on_build=()), author, env, {}, workdir or "/")

    def fork(self) -> StageState:
        """Return the state of a stage that is built upon this one."""
        return StageState(
            platform=self.platform,
            image_platform=self.image_platform,
            config=replace(self.config, on_build=()),
            author=self.author,
            env=dict(self.env),
            args=dict(self.args),
            workdir=self.workdir,
        )

    def set_config(self, **changes: object) -> None:
        """Change fields of the config."""
        self.config = replace(self.config, **changes)  # type: ignore[arg-type]

    def environment(self) -> tuple[str, ...]:
        """Return the environment of the next step as ``KEY=value``."""
        return tuple(f"{name}={value}" for name, value in self.env.items())

    def shell(self) -> tuple[str, ...]:
        """Return the shell that runs commands in shell form."""
        if self.config.shell:
            return self.config.shell
        return ("cmd", "/S", "/C") if self.image_platform.os == "windows" else ("/bin/sh", "-c")
