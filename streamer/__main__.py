"""``python -m streamer``: the command, where it is not installed as ``streamer``."""

import sys

from streamer.cli import main

if __name__ == "__main__":
    sys.exit(main())
