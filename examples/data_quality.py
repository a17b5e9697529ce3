"""Data quality of a run: ``python examples/data_quality.py raw.h5 [--page page.png]``.

While the run goes on: a line each second with rates, and each alarm that is raised or cleared.
At its end, or at Ctrl-C: tables, and a page of plots. It works on batches, with no object per
message, and keeps up with any detector of today.
"""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import anyio
import numpy as np
from rich.console import Console
from rich.table import Table

from streamer import Follower, Gap, LayoutError, StreamError, follow
from streamer.monitor import Alarms, Monitor, Snapshot

try:
    from matplotlib.axes import Axes
    from matplotlib.dates import AutoDateLocator, DateFormatter
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError:
    Figure = Axes = None  # only --page needs it

TYPES = ("data", "test", "config_write", "config_read", "timestamp", "message", "sync", "trigger")
FIFOS = ("local_fifo_half", "local_fifo_full", "shared_fifo_half", "shared_fifo_full")


# -------------------------------------------------------------------------- while it runs


class Watch:
    """Counts all packets of a run, and reports each second."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.monitor = Monitor()
        self.alarms = Alarms.from_toml(args.rules) if args.rules else Alarms()
        self.last_packets = time.time()

    async def run(self) -> None:
        """Go on until the run is over."""
        # A shift goes on when the DAQ starts its file again.
        async with follow(self.args.raw, until=self.args.until, on_replace="continue") as live:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.report_each_second, live)
                await self.count(live)
                tasks.cancel_scope.cancel()
            self.report(live)
            stats = live.stats
            print(f"{live.outcome}: {stats.rows:,} messages, {stats.bytes:,} bytes", flush=True)

    async def count(self, live: Follower) -> None:
        """Count what comes."""
        is_live = False
        async for packets in live.packets(asic=self.args.asic):
            if isinstance(packets, Gap):
                print(f"{packets.source}: {packets.reason}; going on", flush=True)
                continue
            # Some cards' headers have no time: what comes live is then of now.
            self.monitor.update(packets, arrived=time.time() if is_live else None)
            self.last_packets = time.time()
            is_live = is_live or live.lag.rows == 0

    async def report_each_second(self, live: Follower) -> None:
        """Report for ever; less often where that itself takes long, with millions of channels."""
        pause = 1.0
        while True:
            await anyio.sleep(pause)
            begun = time.monotonic()
            self.report(live)
            pause = max(1.0, 4 * (time.monotonic() - begun))

    def report(self, live: Follower) -> None:
        """Print a line, and the alarms that were raised or cleared since the last one."""
        if not live.stats.rows:
            return
        quiet = time.time() - self.last_packets
        snapshot = self.monitor.snapshot()
        if snapshot.time is not None and quiet > 1.5:
            # Nothing comes: the time of the cards goes on as ours.
            snapshot = self.monitor.snapshot(now=snapshot.time + quiet)
        for event in self.alarms.check(snapshot):
            print(f"{utc(event.time)}  ALARM {event}", flush=True)
        silence = f"  nothing for {quiet:.0f} s" if quiet > 1.5 else ""
        print(
            f"{rates(snapshot) or f'{live.stats.rows:,} messages so far'}  "
            f"lag {live.lag.rows:,} rows  alarms {len(self.alarms.active)}{silence}",
            flush=True,
        )


def rates(snapshot: Snapshot) -> str:
    """Say what there was in the newest second that was seen as a whole."""
    whole = np.flatnonzero(snapshot.complete)
    if not len(whole):
        return ""
    counts = {name: values[:, whole[-1]].sum() for name, values in snapshot.history.items()}
    bad = counts["parity_errors"] / max(counts["upstream"] + counts["downstream"], 1)
    return (
        f"{utc(snapshot.seconds[whole[-1]])}  {counts['messages']:9,} messages/s  "
        f"{counts['data']:11,} hits/s  {counts['bytes'] / 1e6:7.1f} MB/s  "
        f"parity errors {bad:7.2%}"
    )


def utc(seconds: float) -> str:
    if not seconds:
        return "--:--:--"  # the cards have told no time yet
    return f"{datetime.fromtimestamp(int(seconds), UTC):%H:%M:%S}"


# ------------------------------------------------------------------------------- in tables


def tables(snapshot: Snapshot, alarms: Alarms) -> None:
    """Print what there was of each io_group and type of packet, and the hottest channels."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    totals, whole = snapshot.totals, snapshot.complete
    chips = totals["upstream"] + totals["downstream"]
    # Rates are of the seconds that were seen as a whole.
    rates = {name: counts[:, whole].sum(axis=0) for name, counts in snapshot.history.items()}

    table = Table("type", "packets", "packets/s", "share", title="Packets")
    of_all = max(sum(totals[name].sum() for name in TYPES), 1)
    for name in TYPES:
        count = totals[name].sum()
        row = (f"{count:,}", number(mean(rates[name]), ",.1f"), f"{count / of_all:.3%}")
        table.add_row(name, *row)
    show(console, table)

    names = ("messages", "hits", "hits/s", "bad parity", "local full", "shared full")
    names += ("syncs", "period - 1e7 [ticks]", "triggers")
    table = Table("io_group", *names, title="Cards")
    period = snapshot.sync_period
    for k, io_group in enumerate(snapshot.io_groups):
        data = max(totals["data"][k], 1)
        table.add_row(
            f"{io_group}",
            f"{totals['messages'][k]:,}",
            f"{totals['data'][k]:,}",
            number(mean(snapshot.history["data"][k, whole]), ",.1f"),
            f"{totals['parity_errors'][k] / max(chips[k], 1):.3%}",
            f"{totals['local_fifo_full'][k] / data:.3%}",
            f"{totals['shared_fifo_full'][k] / data:.3%}",
            f"{period.syncs[k]:,}",
            f"{number(period.mean[k], '+.2f')} ± {number(period.sigma[k], '.2f')}",
            f"{totals['external_triggers'][k]:,}",
        )
    show(console, table)

    channels = snapshot.channels
    names = ("hits", "share", "ADC mean", "ADC RMS")
    table = Table(*channels.address, *names, title=f"Hottest of {len(channels):,} channels")
    hits = channels.total["data"]
    spread = channels.adc_mean(recent=False), channels.adc_rms(recent=False)
    for k in channels.hottest(10, recent=False):
        place = [f"{column[k]}" for column in channels.address.values()]
        adc = [number(column[k], ".1f") for column in spread]
        table.add_row(*place, f"{hits[k]:,}", f"{hits[k] / hits.sum():.3%}", *adc)
    show(console, table)

    faults = [f"{count:,} {kind}" for kind, count in snapshot.faults.items()]
    print("faults:", ", ".join(faults) or "none")
    print(f"alarms that are on: {len(alarms.active)}")
    for alarm in alarms.active:
        print(f"  {alarm.name}: {alarm.subject} at {alarm.value:g}, limit {alarm.threshold:g}")


def show(console: Console, table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)


def mean(counts: np.ndarray) -> float:
    return counts.mean() if len(counts) else np.nan


def number(value: float, form: str) -> str:
    return "-" if np.isnan(value) else format(value, form)


# ------------------------------------------------------------------------------- on a page


def page(snapshot: Snapshot, name: str, path: Path) -> None:
    """Draw all panels on a page."""
    figure = Figure(figsize=(17, 15))
    figure.subplots_adjust(0.05, 0.05, 0.98, 0.92, wspace=0.55, hspace=0.4)
    messages, hits = (snapshot.totals[name].sum() for name in ("messages", "data"))
    when = ""
    if snapshot.time is not None:
        when = f"until {datetime.fromtimestamp(snapshot.time, UTC):%Y-%m-%d %H:%M:%S} UTC: "
    figure.suptitle(f"{name}\n{when}{messages:,} messages, {hits:,} hits", size="x-large")
    for axes, panel in zip(figure.subplots(4, 3).flat, PANELS, strict=True):
        panel(axes, snapshot)
        axes.grid(alpha=0 if axes.images else 0.3)
        if not axes.has_data():
            axes.text(0.5, 0.5, "nothing to show", transform=axes.transAxes, ha="center")
    figure.savefig(path, dpi=80)


def over_time(axes: Axes, snapshot: Snapshot, lines: dict[str, np.ndarray], scale: str) -> None:
    """Draw lines over the seconds that were seen as a whole, each of (S,) values."""
    seconds = snapshot.seconds[snapshot.complete].astype("datetime64[s]")
    for name, values in lines.items():
        values = values[snapshot.complete]
        if np.nansum(values) > 0:
            axes.plot(seconds, np.where(values > 0, values, np.nan), ".-", lw=1, label=name)
    axes.set_xlabel("time of the message headers (UTC)")
    if axes.has_data():
        axes.set_yscale(scale)
        axes.xaxis.set_major_locator(AutoDateLocator(minticks=2, maxticks=6))
        axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))
        if len(lines) <= 10:
            axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), handlelength=1)
        if scale == "linear":
            axes.set_ylim(0, 1.1 * axes.dataLim.ymax)


def packet_rates(axes: Axes, snapshot: Snapshot) -> None:
    lines = {name: snapshot.history[name].sum(axis=0) for name in TYPES}
    over_time(axes, snapshot, lines, "log")
    axes.set(title="Packets by type", ylabel="rate [1/s]")


def flags(axes: Axes, snapshot: Snapshot) -> None:
    counts = {name: values.sum(axis=0) for name, values in snapshot.history.items()}
    data = np.maximum(counts["data"], 1)
    lines = {name.replace("_", " "): counts[name] / data for name in FIFOS}
    chips = np.maximum(counts["upstream"] + counts["downstream"], 1)
    lines["invalid parity"] = counts["parity_errors"] / chips
    over_time(axes, snapshot, lines, "log")
    axes.set(title="FIFO flags and invalid parity", ylabel="fraction of packets")


def card_rates(axes: Axes, snapshot: Snapshot) -> None:
    lines = dict(zip(snapshot.io_groups.tolist(), snapshot.history["data"], strict=True))
    over_time(axes, snapshot, {f"io_group {k}": line for k, line in lines.items()}, "linear")
    axes.set(title="Hits by io_group", ylabel="rate [hits/s]")


def tile_rates(axes: Axes, snapshot: Snapshot) -> None:
    tiles, whole = snapshot.tiles, snapshot.complete
    axes.set(title="Hits by tile", xlabel="tile", ylabel="io_group")
    if not (len(tiles["tile"]) and whole.any()):
        return
    rates = np.full((int(tiles["io_group"].max()) + 1, int(tiles["tile"].max()) + 1), np.nan)
    rates[tiles["io_group"], tiles["tile"]] = tiles["history"][:, whole].mean(axis=1)
    image = axes.imshow(rates, vmin=0, aspect="auto", interpolation="nearest")
    axes.set(xlim=(0.5, rates.shape[1] - 0.5), ylim=(rates.shape[0] - 0.5, 0.5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.figure.colorbar(image, ax=axes, label="rate [hits/s]")


def spectrum(axes: Axes, snapshot: Snapshot, name: str, unit: float = 1) -> None:
    """Draw a histogram of all io_groups, without the empty bins at its ends."""
    histogram = snapshot.histograms[name]
    counts = histogram.total.sum(axis=0)
    filled = np.flatnonzero(counts)
    if len(filled):
        bins = slice(filled[0], filled[-1] + 1)
        edges = histogram.edges[bins.start : bins.stop + 1]
        if edges[1] - edges[0] == 1:
            edges = edges - 0.5  # so that the whole number is in the middle
        axes.stairs(counts[bins], edges * unit, fill=True, alpha=0.7)
    outside = histogram.total_outside.sum()
    if outside:
        axes.text(0.98, 0.95, f"{outside:,} outside", ha="right", transform=axes.transAxes)


def adc(axes: Axes, snapshot: Snapshot) -> None:
    spectrum(axes, snapshot, "adc")
    axes.set(title="ADC of hits", xlabel="ADC [counts]", ylabel="hits", yscale="log")


def sync_period(axes: Axes, snapshot: Snapshot) -> None:
    spectrum(axes, snapshot, "sync_period")
    axes.set(title="Sync period", xlabel="timestamp - 10,000,000 [ticks of 0.1 $\\mu$s]")
    axes.set_ylabel("syncs")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def readout_delay(axes: Axes, snapshot: Snapshot) -> None:
    spectrum(axes, snapshot, "readout_delay", unit=0.1)
    axes.set(title="Readout delay", xlabel="receipt_timestamp - timestamp [$\\mu$s]")
    axes.set(ylabel="hits", yscale="log")


def after_trigger(axes: Axes, snapshot: Snapshot) -> None:
    spectrum(axes, snapshot, "trigger", unit=0.1)
    axes.set(title="Hits after an external trigger", xlabel="time since trigger [$\\mu$s]")
    axes.set_ylabel("hits per $\\mu$s")


def words(axes: Axes, snapshot: Snapshot) -> None:
    edges = snapshot.histograms["words_per_message"].edges
    counts = snapshot.histograms["words_per_message"].total.sum(axis=0)
    if counts.any():
        axes.stairs(counts / np.diff(edges), edges, fill=True, alpha=0.7)
        axes.set(xscale="log", xlim=(0.9, 2 * edges[:-1][counts > 0].max() + 10))
    axes.set(title="Length of messages", xlabel="words", ylabel="messages per word", yscale="log")


def channel_adc(axes: Axes, snapshot: Snapshot) -> None:
    channels = snapshot.channels
    for name, values in (
        ("mean", channels.adc_mean(recent=False)),
        ("RMS", channels.adc_rms(recent=False)),
    ):
        if np.isfinite(values).any():
            axes.hist(values[np.isfinite(values)], bins=100, histtype="step", label=name)
    if axes.has_data():
        axes.legend()
    axes.set(title="ADC of each channel", xlabel="ADC [counts]", ylabel="channels", yscale="log")


def channel_hits(axes: Axes, snapshot: Snapshot) -> None:
    hits = snapshot.channels.total["data"]
    hits = hits[hits > 0]
    if len(hits):
        # A bin between two whole numbers would be empty.
        edges = np.unique(np.geomspace(1, hits.max() + 1, 60).round()) - 0.5
        axes.hist(hits, bins=edges, histtype="step")
        axes.set_xscale("log")
    axes.set(title="Hits of each channel", xlabel="hits", ylabel="channels", yscale="log")


def hot_channels(axes: Axes, snapshot: Snapshot) -> None:
    channels = snapshot.channels
    hottest = channels.hottest(16, recent=False)
    hits = channels.total["data"]
    address = [column[hottest] for column in channels.address.values()]
    if len(hottest):
        names = ["-".join(map(str, place)) for place in zip(*address, strict=True)]
        axes.barh(names, 100 * hits[hottest] / hits.sum(), alpha=0.7)
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize="small")
    axes.set(title="Hottest channels (io_group-io_channel-chip-channel)")
    axes.set_xlabel("share of all hits [%]")


PANELS = (
    *(packet_rates, tile_rates, adc),
    *(card_rates, channel_adc, hot_channels),
    *(flags, channel_hits, words),
    *(sync_period, readout_delay, after_trigger),
)


# ------------------------------------------------------------------------------------ main


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch the data quality of a raw file.")
    parser.add_argument("raw", help="raw file, also one that is being written")
    parser.add_argument("--page", metavar="PNG", type=Path, help="where to draw the plots")
    parser.add_argument("--rules", metavar="TOML", help="of alarms, instead of the usual ones")
    parser.add_argument("--asic", default="v2", help="chips: v2, v2-fifo, v3 or lightpix")
    parser.add_argument(
        "--until",
        choices=["finished", "end"],
        default="finished",
        help="finished: the end of the run; end: what is there now",
    )
    args = parser.parse_args()
    if args.page and Figure is None:
        sys.exit("--page draws with matplotlib, which is missing: pip install matplotlib")
    if args.page and not (args.page.suffix == ".png" and args.page.parent.is_dir()):
        sys.exit(f"error: {args.page}: give the name of a .png, in a folder that is there")
    try:
        watch = Watch(args)
    except StreamError as error:
        sys.exit(f"error: {error}")
    failure = None
    try:
        anyio.run(watch.run)
    except* KeyboardInterrupt:
        print("stopped")
    except* (StreamError, LayoutError, ValueError) as errors:
        failure = f"error: {errors.exceptions[0]}"
    snapshot = watch.monitor.snapshot()
    if len(snapshot.io_groups) or snapshot.faults:  # also of a run that cannot be read to its end
        tables(snapshot, watch.alarms)
        if args.page:
            try:
                page(snapshot, Path(args.raw).name, args.page)
                print(f"plots: {args.page}")
            except OSError as error:
                failure = f"error: {error}"
    sys.exit(failure)


if __name__ == "__main__":
    main()
