"""A reader as a real second process: follows a file to a given row and says what it saw.

    python -m tests.live.reader PATH --rows 60000

Waits for the file, holds it open throughout, and prints one line of JSON.
"""

import argparse
import json
import time
from pathlib import Path

from streamer import RawFile
from streamer.errors import NotReady

from .writers import wrong_rows


def open_soon(path: Path, timeout: float = 60.0) -> RawFile:
    """Open a raw file at the first moment at which it can be opened."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return RawFile(path)
        except NotReady:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.0005)


def main() -> None:
    """Follow a file, and print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.reader")
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, required=True, help="how many to wait for")
    parser.add_argument("--poll", type=float, default=0.01, help="seconds between looks")
    parser.add_argument("--timeout", type=float, default=60.0)
    options = parser.parse_args()

    deadline = time.monotonic() + options.timeout
    seen, looks, wrong = 0, 0, []
    with open_soon(options.path, options.timeout) as file:
        while seen < options.rows and time.monotonic() < deadline:
            rows = file.refresh()
            looks += 1
            if rows > seen:
                wrong += wrong_rows(file.read(seen, rows), seen, rows)
                seen = rows
            else:
                time.sleep(options.poll)
    print(json.dumps({"rows": seen, "wrong": wrong, "looks": looks}))


if __name__ == "__main__":
    main()
