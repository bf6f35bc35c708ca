"""How long to wait before the same thing is tried again, and how often."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field

ATTEMPTS = 5
_FIRST = 0.4
_LONGEST = 15.0
MAX_RETRY_AFTER = 120.0
"""The longest time, in seconds, that a registry may ask to be left alone before castoff gives up instead."""
_MAX_TOTAL = 200


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often something is tried, and how long the waits between are.

    Attributes:
        attempts: tries without any progress.
        first: seconds before the second try; each further wait is twice as long.
        longest: the longest of these waits.
        canceled: set where the caller gives up; waits end at once.
    """

    attempts: int = ATTEMPTS
    first: float = _FIRST
    longest: float = _LONGEST
    canceled: threading.Event = field(default_factory=threading.Event, compare=False)


class Backoff:
    """Counts the tries of one operation, and waits between them. For one thread."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._total = 0

    def progressed(self) -> None:
        """Note that the last try moved something: only tries that move nothing are counted."""
        self._failures = 0

    def wait(self, retry_after: float | None = None) -> bool:
        """Wait before another try; False where there must be none.

        Args:
            retry_after: seconds that the registry asked for; None where it asked for nothing.
        """
        self._failures += 1
        self._total += 1
        if self._failures >= self._policy.attempts or self._total >= _MAX_TOTAL:
            return False
        if retry_after is not None and retry_after > MAX_RETRY_AFTER:
            return False
        delay = min(self._policy.first * 2.0 ** (self._failures - 1), self._policy.longest)
        # Full jitter would let some come back at once; half of it spreads them as well.
        delay *= 0.5 + random.random() / 2  # noqa: S311  (spreads load; no secret)
        return not self._policy.canceled.wait(max(delay, retry_after or 0.0))


def retry_after(value: str, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for; None where it can't be read.

    Args:
        value: seconds, or a date.
        now: seconds since 1970.

    References: RFC 9110, section 10.2.3.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    import email.utils

    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
