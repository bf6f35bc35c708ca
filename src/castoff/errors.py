"""Every error that castoff raises on purpose, and the exit code that each branch gives.

A message is one sentence that says what is wrong, where, and (in `hint`, when there is something to say) what to do.
Only `castoff.cli` prints them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from castoff.location import SourceRange


class CastoffError(Exception):
    """Root of all errors that castoff raises on purpose.

    Attributes:
        exit_code: the exit code of the command line.
        hint: what the reader can do about it; may be None.
        location: the place in a Dockerfile (or another source text) that it is about; may be None.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, location: SourceRange | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.location = location


class UsageError(CastoffError):
    """The command line, or a request to the library, asks for something that makes no sense."""

    exit_code = 2


class DockerfileError(CastoffError):
    """The Dockerfile is not valid."""

    exit_code = 3


class ParseError(DockerfileError):
    """A line of the Dockerfile can't be read."""


class ExpansionError(DockerfileError):
    """A ``$variable`` expression can't be read, or its ``:?`` condition is not met."""


class PlanError(CastoffError):
    """The Dockerfile is well formed, and its stages can't be put together."""

    exit_code = 3


class UnknownStageError(PlanError):
    """A stage is named that does not exist."""


class StageCycleError(PlanError):
    """Stages depend on one another in a ring."""


class ContextError(CastoffError):
    """A build context lacks what a step asks for, or can't be read."""


class PathEscapeError(ContextError):
    """A path leads out of the folder that it must stay in."""


class StepError(CastoffError):
    """A build step failed.

    Attributes:
        name: the step as progress shows it, such as ``[builder 2/5] RUN make``.
    """

    def __init__(
        self, message: str, *, name: str = "", hint: str | None = None, location: SourceRange | None = None
    ) -> None:
        super().__init__(message, hint=hint, location=location)
        self.name = name


class RunError(StepError):
    """The process of a RUN step ended with a code other than 0.

    Attributes:
        returncode: its exit code; 128 + N where signal N ended it.
        tail: the last bytes that it printed.
    """

    def __init__(
        self,
        message: str,
        *,
        returncode: int,
        name: str = "",
        tail: bytes = b"",
        hint: str | None = None,
        location: SourceRange | None = None,
    ) -> None:
        super().__init__(message, name=name, hint=hint, location=location)
        self.returncode = returncode
        self.tail = tail


class SandboxError(CastoffError):
    """A process can't be isolated, or not started, on this machine."""

    exit_code = 4


class UnsupportedError(SandboxError):
    """This machine lacks a feature.

    Attributes:
        feature: what is lacking, as ``castoff doctor`` names it.
    """

    def __init__(
        self, message: str, *, feature: str, hint: str | None = None, location: SourceRange | None = None
    ) -> None:
        super().__init__(message, hint=hint, location=location)
        self.feature = feature


class SyscallError(SandboxError):
    """A system call failed.

    Attributes:
        errno: the number of the error.
    """

    def __init__(self, message: str, *, errno: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class StoreError(CastoffError):
    """The store can't be read or written."""

    exit_code = 6


class BlobNotFoundError(StoreError):
    """A blob, or an image, is not in the store."""


class DigestMismatchError(StoreError):
    """Bytes are not the ones that their digest promises.

    Attributes:
        expected: the digest that was promised.
        actual: the digest of the bytes.
    """

    def __init__(self, message: str, *, expected: str, actual: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.actual = actual


class InvalidReferenceError(CastoffError):
    """A reference, digest or platform is not well formed."""

    exit_code = 2


class InvalidImageError(CastoffError):
    """A manifest, config, layer or archive is not what the OCI specification says."""

    exit_code = 6


class RegistryError(CastoffError):
    """A registry refused, or could not be reached.

    Attributes:
        status: the HTTP status; None where there was no answer.
        diagnostics: the registry's own words.
        temporary: whether the same request may succeed later.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        diagnostics: str = "",
        temporary: bool = False,
        hint: str | None = None,
        location: SourceRange | None = None,
    ) -> None:
        super().__init__(message, hint=hint, location=location)
        self.status = status
        self.diagnostics = diagnostics
        self.temporary = temporary


class UnauthorizedError(RegistryError):
    """A registry wants other credentials."""


class CanceledError(CastoffError):
    """The caller gave the operation up."""


class ExportError(CastoffError):
    """A result can't be written to where it was asked for."""

    exit_code = 6
