"""Feed a display that is slower than the detector: ``python examples/event_feed.py raw.h5``.

The reader puts batches into a short queue, and the display takes the newest. What the
display has no time for is dropped here, counted and said: the reader never waits for it,
and other consumers of the same reader (a monitor, say) see every row.
"""

import argparse
import sys
from collections import deque

import anyio

from streamer import Batch, LayoutError, StreamError, follow


async def main(raw: str) -> None:
    queue: deque[Batch] = deque(maxlen=8)
    news = anyio.Event()
    shown = dropped = 0
    over = False

    async def read() -> None:
        nonlocal dropped, over
        async with follow(raw) as live:
            async for batch in live.batches():
                if len(queue) == queue.maxlen:
                    dropped += len(queue[0])
                queue.append(batch)
                news.set()
        over = True
        news.set()

    async def display() -> None:
        nonlocal news, shown
        while queue or not over:
            if not queue:
                await news.wait()
                news = anyio.Event()
                continue
            batch = queue.popleft()
            shown += len(batch)
            print(f"rows {batch.rows[0]} to {batch.rows[-1]}: {batch.payload_bytes:,} bytes")
            await anyio.sleep(0.1)  # drawing takes its time

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(display)
    finally:  # also at Ctrl-C
        print(f"shown {shown:,} messages, dropped {dropped:,}")


parser = argparse.ArgumentParser(description="Feed a display that is slower than the detector.")
parser.add_argument("raw", help="raw file, also one that is being written")
failure = None
try:
    anyio.run(main, parser.parse_args().raw)
except* KeyboardInterrupt:
    print("stopped")
except* (StreamError, LayoutError) as errors:  # a group of them, as tasks raise it
    failure = f"error: {errors.exceptions[0]}"
sys.exit(failure)
