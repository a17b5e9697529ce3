"""Two consumers of one reader: ``python examples/many_consumers.py raw.h5``.

A data-quality counter is given every message, and the reader waits for it. A display that
takes its time is given the newest messages, and told which ones it missed: it holds up
neither the reader nor the counter.
"""

import argparse
import sys
from collections import Counter

import anyio

from streamer import Gap, LayoutError, StreamError, Subscription, broadcast, follow


async def count(messages: Subscription) -> None:
    """Count the messages of each io_group: all of them."""
    counts: Counter[int] = Counter()
    try:
        async with messages:
            async for batch in messages:
                counts.update(batch.io_groups.tolist())
    finally:  # also at Ctrl-C
        for io_group, number in sorted(counts.items()):
            print(f"quality: io_group {io_group:3}: {number:,} messages")
        print(f"quality: {counts.total():,} messages in all")


async def show(messages: Subscription) -> None:
    """Show the newest messages."""
    shown = 0
    try:
        async with messages:
            async for batch in messages:
                if isinstance(batch, Gap):
                    print(f"display: missed rows {batch.start} to {batch.stop}: {batch.reason}")
                    continue
                shown += len(batch)
                print(f"display: rows {batch.rows[0]} to {batch.rows[-1]}")
                await anyio.sleep(0.2)  # drawing takes its time
    finally:
        print(f"display: {shown:,} messages shown, {messages.missed:,} missed")


async def main(raw: str) -> None:
    async with broadcast(follow(raw)) as hub, anyio.create_task_group() as tasks:
        tasks.start_soon(count, hub.subscribe("block"))
        tasks.start_soon(show, hub.subscribe("latest"))


parser = argparse.ArgumentParser(description="Count all messages, and show the newest.")
parser.add_argument("raw", help="raw file, also one that is being written")
failure = None
try:
    anyio.run(main, parser.parse_args().raw)
except* KeyboardInterrupt:
    print("stopped")
except* (StreamError, LayoutError) as errors:  # a group of them, as tasks raise it
    failure = f"error: {errors.exceptions[0]}"
sys.exit(failure)
