"""A monotonic clock for lifetimes. It counts the time that the machine is suspended."""

import time


def steady() -> float:
    """Seconds since an arbitrary start, from CLOCK_BOOTTIME where the system has it."""
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)
