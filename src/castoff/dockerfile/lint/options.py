"""The options of checks: ``skip=…;error=…;experimental=…`` of a directive, a comment or a build argument."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from castoff.dockerfile.directives import read_all
from castoff.dockerfile.suggest import hint
from castoff.dockerfile.text import SPACE, quote
from castoff.errors import DockerfileError

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_KEYS = ("skip", "error", "experimental")


@dataclass(frozen=True, slots=True)
class LintOptions:
    """Which rules are on.

    Attributes:
        skip: names of rules that are off.
        skip_all: whether all are off but the experimental ones that are asked for.
        experimental: names of experimental rules that are on.
        experimental_all: whether all of these are on.
        error: whether a finding makes the build fail.
    """

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    @classmethod
    def parse(cls, text: str) -> LintOptions:
        """Read the value of ``# check=``.

        Raises:
            DockerfileError: it has a key or a value that is not known.
        """
        options = cls()
        text = text.strip(SPACE)
        for part in text.split(";", 2) if text else ():
            key, separator, value = part.partition("=")
            key, value = key.strip(SPACE), value.strip(SPACE)
            if not separator:
                raise DockerfileError(f"invalid check option {quote(part)}", hint=f"write {_example(key)}")
            if key not in _KEYS:
                near = hint(key, _KEYS) or f"the options are {', '.join(_KEYS)}, with ; between them"
                raise DockerfileError(f"invalid check option {quote(key)}", hint=near)
            options = options._with(key, value, part)
        return options

    def _with(self, key: str, value: str, part: str) -> LintOptions:
        if key == "error":
            if value not in _TRUE | _FALSE:
                raise DockerfileError(
                    f"failed to parse check option {quote(part)}", hint="write error=true or error=false"
                )
            return replace(self, error=value in _TRUE)
        every = value == "all"
        names = frozenset() if every else frozenset(name.strip(SPACE) for name in value.split(","))
        if key == "skip":
            return replace(self, skip_all=every, skip=names)
        return replace(self, experimental_all=every, experimental=names)

    def merged(self, other: LintOptions) -> LintOptions:
        """Return these options with the rules of others switched too; `error` stays."""
        return replace(
            self,
            skip=self.skip | other.skip,
            skip_all=self.skip_all or other.skip_all,
            experimental=self.experimental | other.experimental,
            experimental_all=self.experimental_all or other.experimental_all,
        )

    def above(self, comments: Iterable[str]) -> LintOptions:
        """Return the options for one instruction, which the comments above it may change.

        The first comment that is a ``check=`` counts; one that can't be read counts for nothing.
        """
        for comment in comments:
            if "check" not in comment.lower():
                continue
            found = [directive for directive in read_all(comment, "") if directive.name == "check"]
            if found:
                try:
                    return self.merged(LintOptions.parse(found[0].value.partition(" ")[0]))
                except DockerfileError:
                    return self
        return self


def _example(key: str) -> str:
    return "error=true" if key == "error" else f"{key if key in _KEYS else 'skip'}=RuleName,OtherRule"
