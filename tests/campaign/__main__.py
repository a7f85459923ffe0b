"""All campaigns one after the other: `make campaign`. CAMPAIGN_SCALE=short takes about four minutes."""

from __future__ import annotations

import subprocess
import sys
import time

CAMPAIGNS = ("kill", "reload", "restart", "faults", "hostile")


def main() -> int:
    """Runs each in a process of its own; 0 when none found anything."""
    began = time.monotonic()
    failed = [
        name
        for name in CAMPAIGNS
        if subprocess.run([sys.executable, "-m", f"campaign.{name}"], check=False).returncode != 0
    ]
    result = f"not held: {', '.join(failed)}" if failed else "all held"
    print(f"campaigns: {', '.join(CAMPAIGNS)}: {result}, in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
