"""What can go wrong, each with its exit code and what to do about it."""

from __future__ import annotations


class FreezeError(Exception):
    """The root of all errors of a freeze: one sentence, and a hint where there is something to do.

    Attributes:
        hint: what to do, or "".
        code: exit code of the process.
    """

    code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(FreezeError):
    """The command line or the smoke description makes no sense."""

    code = 2


class EntryError(UsageError):
    """There is no such entry in this environment."""


class LockError(UsageError):
    """The lock is absent, or is not what is installed."""


class UnsafePackageError(FreezeError):
    """A package cannot be frozen without risk; the message says which and why."""


class SmokeError(FreezeError):
    """The unshrunk service does not do what the smoke description expects."""


class VerifyError(FreezeError):
    """The frozen tree does not answer as the unshrunk service did."""


class OutputError(FreezeError):
    """The tree cannot be written to where it was asked for."""


class UnsupportedError(FreezeError):
    """This machine lacks a feature that was asked for by name."""

    code = 4
