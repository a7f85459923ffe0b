"""A clock for lifetimes: it never goes back, whatever is done to the wall clock, and counts a machine's sleep."""

import time


def steady() -> float:
    """Seconds from an arbitrary start, of CLOCK_BOOTTIME where the system has it."""
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)
