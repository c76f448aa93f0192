"""How long a judge is waited for, and how often it is asked again."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from agentgym.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Patience:
    """Deadlines and back-off of one question.

    Raises:
        ConfigError: a number that cannot be meant.
    """

    attempts: int = 5
    "Calls at most."
    call_s: float = 120.0
    "One call is given up after this long."
    total_s: float = 600.0
    "All calls and the waits between them; time spent queueing for one's turn is not counted, as it is not the judge's."
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    "Bounds what we choose to wait; what the judge asks for by Retry-After is waited in full, or not at all."
    seed: int = 0

    def __post_init__(self) -> None:
        times = (self.call_s, self.total_s, self.first_wait_s, self.longest_wait_s)
        if self.attempts < 1 or not all(0 <= time_s < math.inf for time_s in times) or not self.call_s * self.total_s:
            raise ConfigError(f"patience needs at least one attempt, finite times and deadlines above 0; got {self}")

    def wait_s(self, key: str, attempt: int) -> float:
        """Return how long to wait after the failed ``attempt`` (from 0) of the question called ``key``, in seconds.

        Uniform in [0, min(longest, first · 2^attempt)]: "full jitter" of Brooker, *Exponential Backoff And Jitter*
        (AWS Architecture Blog, 2015). The draw is a function of seed, key and attempt.
        """
        return uniform(self.seed, key, attempt) * min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempt, 60))


def uniform(*about: object) -> float:
    """Return a number in [0, 1) that is always the same about the same things, and else as good as drawn."""
    return int.from_bytes(hashlib.sha256(repr(about).encode()).digest()[:6], "big") / 2**48


def retry_after_s(header: str | None) -> float:
    """Return the seconds that a Retry-After header asks for (RFC 9110, section 10.2.3), 0 where it asks for none."""
    if header is None:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - time.time())


__all__ = ["Patience", "retry_after_s", "uniform"]
