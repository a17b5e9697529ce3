"""Write what a simulated detector sends: ``python -m writer OUT``.

Ctrl-C, or a SIGTERM, ends the run as its normal end does: the batch under way is completed and
the file is closed.
"""

import argparse
import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from writer.errors import WriterError
from writer.layout import LayoutError
from writer.rawwriter import RawWriter
from writer.simulate import LOADS, START_TIME, simulate


def main() -> int:
    """Run the command, and return its exit code."""
    args = _arguments()
    signals: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        signals.append(number)
        # Whoever asks twice does not want to wait.
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)

    begun, rows, size = time.monotonic(), 0, 0
    batches = simulate(
        args.load,
        seed=args.seed,
        seconds=args.seconds,
        batch_seconds=args.batch_ms / 1000,
        start_time=START_TIME if args.fast else time.time(),
        realtime=not args.fast,
    )
    try:
        with RawWriter(args.out, io_version="0.0") as out:
            for batch in batches:
                if signals:
                    break
                rows += len(out.append(batch.buffer, batch.io_groups, lengths=batch.lengths))
                size += len(batch.buffer)
    except (WriterError, LayoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {rows:,} rows, {size:,} bytes, {time.monotonic() - begun:.1f} s")
    return 128 + signals[0] if signals else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m writer",
        description="Write what a simulated detector sends into a raw HDF5 file.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="raw file to make or to continue")
    parser.add_argument("--load", choices=LOADS, default="2x2", help="which detector")
    parser.add_argument(
        "--seconds", type=_positive_number, help="how long; until Ctrl-C if not given"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="same seed, same detector")
    parser.add_argument(
        "--batch-ms", type=_positive_number, default=100, help="detector time per batch"
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="as fast as possible and always at the same date, not at the pace of the clock",
    )
    return parser.parse_args()


def _positive_number(text: str) -> float:
    value = float(text)
    if not (0 < value < math.inf):
        msg = f"must be more than 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        msg = f"must not be negative, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


if __name__ == "__main__":
    sys.exit(main())
