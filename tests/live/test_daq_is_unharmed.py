"""However many readers there are, the data taking goes on as if there were none."""

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py

from .writers import ROOT, environment, running

READERS = 10
BATCH, BATCHES = 600, 100


@contextmanager
def reading(path: Path, rows: int):
    """Run a reader in a second process, which is ended here at the latest."""
    command = [sys.executable, "-W", "error", "-m", "tests.live.reader", str(path)]
    with subprocess.Popen(
        [*command, f"--rows={rows}"], stdout=subprocess.PIPE, cwd=ROOT, env=environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_stock_writer_loses_nothing_to_ten_readers(tmp_path: Path):
    """The stock writer's many opens all succeed while ten processes hold the file."""
    path = tmp_path / "raw.h5"
    rows = BATCH * BATCHES
    with ExitStack() as stack:
        readers = [stack.enter_context(reading(path, rows)) for _ in range(READERS)]
        with running("stock", path, batch=BATCH, batches=BATCHES, pause=0.01) as writer:
            assert writer.wait() == 0
            assert writer.committed == rows
        for reader in readers:
            report, _ = reader.communicate(timeout=60)
            assert reader.returncode == 0
            seen = json.loads(report)
            assert (seen["rows"], seen["wrong"]) == (rows, [])
            assert seen["looks"] > BATCHES // 4, "it hardly followed the file"
    with h5py.File(path) as file:
        assert len(file["msgs"]) == len(file["msg_headers"]) == rows
