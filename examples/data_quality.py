"""Rates and message sizes of a run, once a second: ``python examples/data_quality.py raw.h5``.

Works on batches: no object per message, so that it keeps up with any detector of today.
"""

import sys
import time

import anyio
import numpy as np

from streamer import follow


async def main() -> None:
    begun = last = time.monotonic()
    messages = np.zeros(256, dtype=np.int64)  # by io_group
    sizes: list[np.ndarray] = []
    async with follow(sys.argv[1]) as live:
        async for batch in live.batches():
            messages += np.bincount(batch.io_groups, minlength=256)
            sizes.append(batch.lengths)
            now = time.monotonic()
            if now - last > 1:
                report(messages, np.concatenate(sizes), now - last, live.lag.rows)
                messages[:], sizes, last = 0, [], now
        if sizes:
            report(messages, np.concatenate(sizes), time.monotonic() - last, live.lag.rows)
        total = live.stats
    print(f"{live.outcome}: {total.rows:,} messages in {time.monotonic() - begun:.1f} s")


def report(messages: np.ndarray, sizes: np.ndarray, seconds: float, behind: int) -> None:
    """Print a line for each io_group, and one for the sizes."""
    for io_group in np.flatnonzero(messages):
        print(f"io_group {io_group:3}: {messages[io_group] / seconds:10,.0f} messages/s")
    low, middle, high = np.percentile(sizes, [1, 50, 99])
    print(
        f"sizes: median {middle:.0f} B, 1 % below {low:.0f} B, 1 % above {high:.0f} B; "
        f"{sizes.sum() / seconds / 1e6:.1f} MB/s; {behind} rows behind\n"
    )


anyio.run(main)
