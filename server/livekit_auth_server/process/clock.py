"""The machine's clocks."""

import time


class SystemClock:
    """Wall clock and monotonic clock of this machine."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
