"""Write what a simulated detector sends: ``python -m writer OUT``.

Ctrl-C, or a SIGTERM, ends the run as its normal end does: the batch under way is completed and
the file is closed.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from writer.errors import WriterError
from writer.layout import LayoutError
from writer.recording import Recorded, record
from writer.simulate import LOADS


def main() -> int:
    """Run the command, and return its exit code."""
    parser = _parser()
    args = parser.parse_args()
    try:
        done = record(
            args.out,
            load=args.load,
            seed=args.seed,
            seconds=args.seconds,
            batch_seconds=args.batch_ms / 1000,
            fast=args.fast,
            append=args.append,
            told=_tell if args.tell else None,
        )
    except (WriterError, LayoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # nobody is told any more: whoever started this has died
        sys.stdout = None  # nor at exit
        return 1
    except ValueError as error:
        parser.error(str(error))
    if not args.tell:
        print(f"{args.out}: {done}")
    return 128 + done.signal if done.signal else 0


def _tell(recorded: Recorded) -> None:
    print(json.dumps(recorded._asdict()), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m writer",
        description="Write what a simulated detector sends into a raw HDF5 file.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="raw file to make")
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
    parser.add_argument("--append", action="store_true", help="continue OUT if it exists already")
    parser.add_argument(
        "--tell",
        action="store_true",
        help="say after each batch what has been recorded so far, as a line of JSON",
    )
    return parser


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
