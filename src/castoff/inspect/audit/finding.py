"""The rules of an audit, and what it finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Level(enum.IntEnum):
    """How much a finding matters; `OFF` is for rules that are not applied."""

    OFF = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        """The level as policies and reports spell it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: what policies and reports call it.
        level: how much a breach matters where the policy does not say.
        title: what holds in an image that keeps it.
        remedy: what to do about a breach.
    """

    id: str
    level: Level
    title: str
    remedy: str


class Observation(NamedTuple):
    """What one check saw.

    Attributes:
        rule: the id of the rule that is broken.
        message: one sentence.
        path: the file; None where it is about the image as a whole.
        layer: the number of the layer, from 0 for the lowest; None where it is about the config.
        instruction: what made it, for what is in no layer; "" takes the layer's.
    """

    rule: str
    message: str
    path: bytes | None = None
    layer: int | None = None
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A breach of a rule.

    Attributes:
        rule: the rule.
        level: how much it matters under the policy.
        message: one sentence.
        path: the file; None where it is about the image as a whole.
        layer: the number of its layer, from 0 for the lowest; None where it is about the config.
        digest: the digest of that layer; "" for none.
        instruction: the instruction that made it, as the history has it; "" where that is not known.
    """

    rule: Rule
    level: Level
    message: str
    path: bytes | None = None
    layer: int | None = None
    digest: str = ""
    instruction: str = ""


_REVOKE = "Make the secret invalid now; give it to a step with RUN --mount=type=secret and to the process at run time."

RULES: tuple[Rule, ...] = (
    Rule("root-user", Level.ERROR, "runs as another user than root", "Add USER with a number other than 0."),
    Rule("unknown-user", Level.ERROR, "USER exists in the image", "Create the user, or give USER a number."),
    Rule(
        "required-user", Level.ERROR, "runs as the user that the policy asks for", "Set USER to what the policy says."
    ),
    Rule("extra-root", Level.ERROR, "root is the only user with the id 0", "Give the user an id of its own."),
    Rule("login-password", Level.ERROR, "no user has a password", "Lock the password: put ! or * in its place."),
    Rule("missing-entrypoint", Level.ERROR, "the program that it starts is there", "Copy it into the final stage."),
    Rule(
        "entrypoint-architecture",
        Level.ERROR,
        "the program that it starts is for its platform",
        "Build it for the platform: GOARCH=$TARGETARCH, or the compiler's target option, instead of a fixed name.",
    ),
    Rule(
        "foreign-binary",
        Level.WARNING,
        "binaries are for its platform",
        "Build them for the platform, or leave them out.",
    ),
    Rule(
        "missing-loader", Level.ERROR, "dynamic programs have their loader", "Link statically, or use a base with libc."
    ),
    Rule("missing-library", Level.ERROR, "shared libraries are there", "Copy the library along, or link statically."),
    Rule("dynamic-binary", Level.OFF, "programs are static", "Link statically: CGO_ENABLED=0, or -static."),
    Rule("shell", Level.ERROR, "has no shell", "Use a base without one, and the exec form of ENTRYPOINT and CMD."),
    Rule("package-manager", Level.ERROR, "has no package manager", "Install in a builder stage and copy what it made."),
    Rule("interpreter", Level.WARNING, "has no interpreter but its own", "Leave it in the builder stage."),
    Rule("build-tool", Level.ERROR, "has no compiler, linker or other build tool", "Leave it in the builder stage."),
    Rule("network-tool", Level.WARNING, "has no tools for downloads and connections", "Leave it in the builder stage."),
    Rule("privilege-tool", Level.ERROR, "has nothing that makes a user root", "Remove it: a container needs none."),
    Rule("setuid", Level.ERROR, "no program changes the user it runs as", "chmod u-s in the layer that brings it."),
    Rule("setgid", Level.ERROR, "no program changes the group it runs as", "chmod g-s in the layer that brings it."),
    Rule("file-capability", Level.WARNING, "no program raises its capabilities", "setcap -r, and listen above 1024."),
    Rule("world-writable", Level.ERROR, "nothing may be written by everybody", "chmod o-w; +t for shared folders."),
    Rule("device-node", Level.WARNING, "has no device nodes", "Remove it: /dev is made when a container starts."),
    Rule("secret-file", Level.ERROR, "no file holds a secret", _REVOKE),
    Rule("credential-file", Level.ERROR, "no file is one that tools keep credentials in", _REVOKE),
    Rule("buried-secret", Level.ERROR, "no lower layer holds a secret that a later one hides", _REVOKE),
    Rule("secret-in-config", Level.ERROR, "no variable or label holds a secret", _REVOKE),
    Rule("secret-in-history", Level.ERROR, "no instruction in the history holds a secret", _REVOKE),
    Rule(
        "deleted-file",
        Level.WARNING,
        "no layer removes what a lower one ships",
        "Remove it in the instruction that makes it, or copy only what is needed into a new stage.",
    ),
    Rule("replaced-file", Level.NOTE, "no layer replaces a large file", "Make the file once, in its last form."),
    Rule("package-cache", Level.WARNING, "has no downloads and caches", "Use RUN --mount=type=cache for the folder."),
    Rule("version-control", Level.WARNING, "has no repository of version control", "Add .git to .dockerignore."),
    Rule("ca-bundle", Level.WARNING, "has the certificates of public authorities", "Add ca-certificates to the base."),
    Rule("size-budget", Level.ERROR, "stays within its size", "castoff size shows what weighs most."),
)
"""All rules, in the order of reports."""


def rules_by_id() -> dict[str, Rule]:
    """Return the rules by what they are called."""
    return {rule.id: rule for rule in RULES}
