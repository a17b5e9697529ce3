"""A monitor that is slow and obvious: it keeps every packet, and counts when it is asked.

What it returns is what `Snapshot.as_dict(channels=None)` has to be.
"""

from collections import Counter, defaultdict
from fractions import Fraction
from itertools import pairwise
from math import sqrt

COUNTERS = [
    *("messages", "bytes", "words", "data", "test", "config_write", "config_read"),
    *("timestamp", "message", "sync", "trigger", "parity_errors", "data_parity_errors"),
    *("upstream", "downstream", "write_upstream", "write_downstream"),
    *("read_upstream", "read_downstream", "config_parity_errors"),
    *("local_fifo_half", "local_fifo_full", "local_fifo_flagged"),
    *("shared_fifo_half", "shared_fifo_full", "shared_fifo_flagged"),
    *("sync_resets", "heartbeats", "clock_switches", "external_triggers"),
]
CHIP_COUNTERS = [
    *("test", "write_upstream", "write_downstream", "read_upstream", "read_downstream"),
    "config_parity_errors",
]
CHANNEL_COLUMNS = [
    *("io_group", "io_channel", "chip_id", "channel_id"),
    *("rate", "share", "adc_mean", "adc_rms"),
    *(
        f"{when}_{name}"
        for when in ("recent", "total")
        for name in (
            *("data", "data_parity_errors", "adc_sum", "adc_square_sum", "local_fifo_half"),
            *("local_fifo_full", "shared_fifo_half", "shared_fifo_full"),
        )
    ),
]
WORD_EDGES = [
    *range(64),
    *(2**k + 2**k * eighth // 8 for k in range(6, 16) for eighth in range(8)),
    2**16,
]
DAY = 86_400


class Reference:
    """As `streamer.monitor.Monitor`, with the same parameters."""

    def __init__(
        self,
        *,
        history=600,
        span=10,
        spans=6,
        trigger_source=None,
        trigger_reach=16384,
        drift_ticks=1900,
        tolerance=60.0,
    ):
        self.history, self.span, self.spans = history, span, spans
        self.source, self.reach, self.drift = trigger_source, trigger_reach, drift_ticks
        self.tolerance = tolerance
        self.packets = []
        self.messages = []
        self.faults = []
        self.undated = self.misdated = 0
        self.last_second = None

    # -------------------------------------------------------------------------- taking

    def update(self, packets, arrived=None):
        """Keep packets, which begin with whole messages."""
        width = {16: (8, 16), 24: (24, 24)}[16 if packets.receipt_timestamp.itemsize == 4 else 24]
        records = packets.to_records()
        names = records.dtype.names
        rows = packets.row.tolist()
        faulty = Counter(
            (row, kind) for kind, bad in packets.faults.items() for row in bad.tolist()
        )
        for k, record in enumerate(records.tolist()):
            one = dict(zip(names, record, strict=True))
            if one["packet_type"] == 4:
                self._fault(faulty, before=rows[k])
                second = int(packets.time[k]) or None
                if second is None:
                    self.undated += 1
                    second = None if arrived is None else int(arrived)
                elif arrived is not None and second > arrived + self.tolerance:
                    self.misdated += 1
                    second = int(arrived)
                message = {
                    "io_group": one["io_group"],
                    "second": second,
                    "bytes": width[0],
                    "words": 0,
                }
                self.messages.append(message)
                if second is not None:
                    self.last_second = second
            else:
                message["bytes"] += width[1]
                message["words"] += 1
            one["second"] = message["second"]
            one["is_data"] = bool(packets.is_data[k])
            one["bits"] = 31
            if packets.fifo_diagnostics_enabled[k]:
                one["bits"] = 16
            elif one["is_data"] and one["packet_type"] == 1:
                one["bits"] = 28
            self.packets.append(one)
        self._fault(faulty, before=float("inf"))

    def _fault(self, faulty, before):
        """Date the faults of the rows before one, which has not been dated yet."""
        for row, kind in [key for key in faulty if key[0] < before]:
            self.faults += [(kind, self.last_second)] * faulty.pop((row, kind))

    # ------------------------------------------------------------------------- counting

    def groups(self):
        return sorted({one["io_group"] for one in self.packets})

    def kept(self, key, depth):
        """Return the newest keys of each io_group, of what has a second."""
        keys = defaultdict(set)
        for one in self.packets:
            if one["second"] is not None:
                keys[one["io_group"]].add(key(one["second"]))
        return {group: set(sorted(found)[-depth:]) for group, found in keys.items()}

    def axis(self):
        """Return first and last shown second, the first of all, the last complete, the newest."""
        newest = {}
        for group, seconds in self.kept(int, self.history).items():
            ordered = sorted(seconds)
            near = [b for a, b in pairwise(ordered) if b - a <= DAY]
            newest[group] = max(near) if near else ordered[-1]
        if not newest:
            return None
        votes = {
            end: sum(end - self.history < one <= end for one in newest.values())
            for end in newest.values()
        }
        last = max(end for end in votes if votes[end] == max(votes.values()))
        first_of_all = min(one["second"] for one in self.packets if one["second"] is not None)
        first = max(last - self.history + 1, min(first_of_all, last))
        done = min([last, *(one for one in newest.values() if one >= last - 2)]) - 1
        return first, last, first_of_all, done, newest

    def counters(self, one):
        """Return what a packet counts as."""
        kind, data = one["packet_type"], one["is_data"]
        of_chip = kind < 4
        write, read = kind == 2, kind == 3
        down = bool(one["downstream_marker"])
        bad = of_chip and not one["valid_parity"]
        return {
            "data": data,
            "test": kind < 2 and not data,
            "config_write": write,
            "config_read": read,
            "timestamp": kind == 4,
            "message": kind == 5,
            "sync": kind == 6,
            "trigger": kind == 7,
            "parity_errors": bad,
            "data_parity_errors": data and bad,
            "upstream": of_chip and not down,
            "downstream": of_chip and down,
            "write_upstream": write and not down,
            "write_downstream": write and down,
            "read_upstream": read and not down,
            "read_downstream": read and down,
            "config_parity_errors": (write or read) and bad,
            "local_fifo_half": data and one["local_fifo"] in (1, 3),
            "local_fifo_full": data and one["local_fifo"] in (2, 3),
            "local_fifo_flagged": data and one["local_fifo"] != 0,
            "shared_fifo_half": data and one["shared_fifo"] in (1, 3),
            "shared_fifo_full": data and one["shared_fifo"] in (2, 3),
            "shared_fifo_flagged": data and one["shared_fifo"] != 0,
            "sync_resets": kind == 6 and one["trigger_type"] == ord("S"),
            "heartbeats": kind == 6 and one["trigger_type"] == ord("H"),
            "clock_switches": kind == 6 and one["trigger_type"] == ord("C"),
            "external_triggers": kind == 7 and bool(one["trigger_type"] & 2),
        }

    def counted(self):
        """Yield each count: io_group, second, name, how many."""
        for one in self.packets:
            for name, counts in self.counters(one).items():
                yield one["io_group"], one["second"], name, int(counts)
        for message in self.messages:
            where = message["io_group"], message["second"]
            yield *where, "messages", 1
            yield *where, "bytes", message["bytes"]
            yield *where, "words", message["words"]

    def histogrammed(self):
        """Yield each value: io_group, second, name, value, how often."""
        last, since, previous = {}, Counter(), None
        trigger_edges = self.edges()["trigger"]
        for one in self.packets:
            group, second = one["io_group"], one["second"]
            if one["packet_type"] == 6 and one["trigger_type"] == ord("S"):
                yield group, second, "sync_period", min(one["timestamp"], 2**32) - 10**7, 1
            if one["packet_type"] == 7 and one["trigger_type"] & 2:
                if previous is not None:
                    yield group, second, "trigger_to_trigger", one["timestamp"] - previous, 1
                previous = last[group] = one["timestamp"]
                for other in range(256):
                    if self.source_of(other) == group:
                        since[other] = 0
            if not one["is_data"] or not one["valid_parity"]:
                continue
            top = 2 ** one["bits"]
            delay = one["receipt_timestamp"] % top - one["timestamp"]
            yield group, second, "adc", one["dataword"], 1
            yield group, second, "readout_delay", delay, 1
            yield group, second, "readout_delay_phase", delay % 264 if delay >= 0 else -1, 1
            source = self.source_of(group)
            since[group] += 1
            if source in last and since[group] <= self.reach:
                late = (one["timestamp"] - last[source]) % top
                late -= top if late >= top + trigger_edges[0] else 0
                if late < trigger_edges[-1]:
                    yield group, second, "trigger", late, 1
                    yield group, second, "trigger_adc", late, one["dataword"]
        for message in self.messages:
            yield message["io_group"], message["second"], "words_per_message", message["words"], 1

    def source_of(self, group):
        if self.source is None or isinstance(self.source, int):
            return group if self.source is None else self.source
        return self.source.get(group)

    def edges(self):
        # From a tenth of a drift before it to four after it, in whole bins.
        trigger = list(range(-10 * round(self.drift / 100), 4 * self.drift + 10, 10))
        if trigger[-2] >= 4 * self.drift:
            trigger.pop()
        return {
            "adc": list(range(1025)),
            "readout_delay": list(range(0, 264 * 513, 264)),
            "readout_delay_phase": list(range(265)),
            "sync_period": list(range(-100, 102)),
            "trigger": trigger,
            "trigger_adc": trigger,
            "trigger_to_trigger": list(range(-1000, 1002)),
            "words_per_message": WORD_EDGES,
        }

    # -------------------------------------------------------------------------- showing

    def as_dict(self, now=None):
        groups, axis = self.groups(), self.axis()
        place = {group: k for k, group in enumerate(groups)}
        first, last, first_of_all, done, newest = axis or (1, 0, 0, 0, {})
        seconds = list(range(first, last + 1))
        time = last if axis else None
        now = float(now if now is not None else time or 0)
        complete = [first_of_all < one <= done for one in seconds]
        kept = self.kept(int, self.history)

        def column():
            return [[0] * len(seconds) for _ in groups]

        history = {name: column() for name in COUNTERS}
        totals = {name: [0] * len(groups) for name in COUNTERS}
        for group, second, name, count in self.counted():
            totals[name][place[group]] += count
            if second in kept.get(group, ()) and first <= second <= last:
                history[name][place[group]][second - first] += count
        bad, up, down = (history[name] for name in ("parity_errors", "upstream", "downstream"))
        chosen, length, is_complete = self.newest_spans(axis, seconds, complete, first_of_all)
        return {
            "time": time,
            "now": now,
            "seconds": seconds,
            "complete": complete,
            "io_groups": groups,
            "newest": [newest.get(group, -1) for group in groups],
            "history": history,
            "parity_error_fraction": [
                [ratio(a, b + c) for a, b, c in zip(*lines, strict=True)]
                for lines in zip(bad, up, down, strict=True)
            ],
            "totals": totals,
            "tiles": self.tiles(kept, first, last),
            "channels": self.channels(chosen, length, is_complete),
            "chips": self.chips(),
            "sync_period": self.sync_period(lambda one: True),
            "recent_sync_period": self.sync_period(
                lambda one: (
                    one["second"] in kept.get(one["io_group"], ())
                    and first <= one["second"] <= last
                )
            ),
            "sync_history": self.sync_history(groups, seconds, kept),
            "message_age": [age(newest.get(group), now) for group in groups],
            "sync_age": [age(self.last_sync(group, kept, newest), now) for group in groups],
            "faults": dict(Counter(kind for kind, _ in self.faults)),
            "fault_history": self.fault_history(seconds, first_of_all),
            "undated": self.undated,
            "misdated": self.misdated,
            "histograms": self.histograms(place, chosen),
        }

    def newest_spans(self, axis, seconds, complete, first_of_all):
        """Return the spans of each io_group that count, how long they are, whether whole."""
        if axis is None:
            return {}, 0, False
        last = seconds[-1] // self.span
        numbers = range(last - self.spans + 1, last + 1)
        whole = [one for one, is_whole in zip(seconds, complete, strict=True) if is_whole]
        done = [
            number
            for number in numbers
            if whole
            and first_of_all < number * self.span
            and (number + 1) * self.span - 1 <= whole[-1]
        ]
        kept = self.kept(lambda second: second // self.span, self.spans)
        if done:
            return keep(kept, done), self.span * len(done), True
        start = max(seconds[0], numbers[0] * self.span)
        return keep(kept, numbers), seconds[-1] - start + 1, False

    def is_recent(self, group, second, chosen):
        return second is not None and second // self.span in chosen.get(group, ())

    def tiles(self, kept, first, last):
        history, total = {}, Counter()
        for one in self.packets:
            if one["is_data"]:
                group, second = one["io_group"], one["second"]
                tile = (group, (one["io_channel"] - 1) // 4 + 1)
                line = history.setdefault(tile, [0] * (last - first + 1))
                total[tile] += 1
                if second in kept.get(group, ()) and first <= second <= last:
                    line[second - first] += 1
        tiles = sorted(total)
        return {
            "io_group": [tile[0] for tile in tiles],
            "tile": [tile[1] for tile in tiles],
            "history": [history[tile] for tile in tiles],
            "total": [total[tile] for tile in tiles],
        }

    def channels(self, chosen, length, is_complete):
        found = defaultdict(lambda: (Counter(), Counter()))
        for one in self.packets:
            if one["is_data"]:
                fields = ("io_group", "io_channel", "chip_id", "channel_id")
                recent, total = found[tuple(one[name] for name in fields)]
                good = one["valid_parity"]
                counts = {
                    "data": 1,
                    "data_parity_errors": not good,
                    "adc_sum": one["dataword"] if good else 0,
                    "adc_square_sum": one["dataword"] ** 2 if good else 0,
                    "local_fifo_half": one["local_fifo"] & 1,
                    "local_fifo_full": one["local_fifo"] >> 1,
                    "shared_fifo_half": one["shared_fifo"] & 1,
                    "shared_fifo_full": one["shared_fifo"] >> 1,
                }
                for name, count in counts.items():
                    total[name] += int(count)
                    recent[name] += int(count) * self.is_recent(
                        one["io_group"], one["second"], chosen
                    )
        everything = sum(recent["data"] for recent, _ in found.values())
        lines = []
        for address, (recent, total) in sorted(found.items()):
            good = recent["data"] - recent["data_parity_errors"]
            mean = ratio(recent["adc_sum"], good)
            line = dict(zip(fields, address, strict=True)) | {
                "rate": recent["data"] / max(length, 1),
                "share": recent["data"] / max(everything, 1),
                "adc_mean": mean,
                "adc_rms": None
                if mean is None
                else sqrt(
                    Fraction(recent["adc_square_sum"], good)
                    - Fraction(recent["adc_sum"], good) ** 2
                ),
            }
            line |= {f"recent_{name}": count for name, count in recent.items()}
            line |= {f"total_{name}": count for name, count in total.items()}
            lines.append(line)
        columns = {name: [line[name] for line in lines] for name in CHANNEL_COLUMNS}
        return {"count": len(found), "seconds": length, "is_complete": is_complete, "all": columns}

    def chips(self):
        found = defaultdict(Counter)
        for one in self.packets:
            if one["packet_type"] < 4:
                chip = (one["io_group"], one["io_channel"], one["chip_id"])
                counts = self.counters(one)
                found[chip].update({name: int(counts[name]) for name in CHIP_COUNTERS})
        chips = sorted(found)
        columns = {
            name: [chip[k] for chip in chips]
            for k, name in enumerate(("io_group", "io_channel", "chip_id"))
        }
        return columns | {name: [found[chip][name] for chip in chips] for name in CHIP_COUNTERS}

    def sync_period(self, is_chosen):
        values = {group: [] for group in self.groups()}
        for one in self.packets:
            if one["packet_type"] == 6 and one["trigger_type"] == ord("S") and is_chosen(one):
                values[one["io_group"]].append(min(one["timestamp"], 2**32) - 10**7)
        means = [Fraction(sum(line), len(line)) if line else None for line in values.values()]
        return {
            "syncs": [len(line) for line in values.values()],
            "mean": [mean if mean is None else float(mean) for mean in means],
            "sigma": [
                sqrt(sum((one - mean) ** 2 for one in line) / len(line)) if line else None
                for line, mean in zip(values.values(), means, strict=True)
            ],
        }

    def sync_history(self, groups, seconds, kept):
        values = defaultdict(list)
        for one in self.packets:
            if one["packet_type"] == 6 and one["trigger_type"] == ord("S"):
                late = min(one["timestamp"], 2**32) - 10**7
                values[one["io_group"], one["second"]].append(late)
        return [
            [
                ratio(sum(values[group, second]), len(values[group, second]))
                if second in kept.get(group, ())
                else None
                for second in seconds
            ]
            for group in groups
        ]

    def last_sync(self, group, kept, newest):
        times = [
            one["second"]
            for one in self.packets
            if one["io_group"] == group
            and one["packet_type"] == 6
            and one["trigger_type"] == ord("S")
            and one["second"] is not None
        ]
        shown = [one for one in times if one in kept[group] and one <= newest[group]]
        if shown or not times:
            return max(shown, default=None)
        return max(times) if max(times) <= newest[group] else None

    def fault_history(self, seconds, first_of_all):
        found = {}
        for kind in {kind for kind, _ in self.faults}:
            counts = Counter(one for name, one in self.faults if name == kind and one is not None)
            kept = sorted(counts)[-self.history :]
            found[kind] = [counts[one] if one in kept else 0 for one in seconds]
            if seconds and seconds[0] == first_of_all:
                found[kind][0] += sum(one is None for name, one in self.faults if name == kind)
        return found

    def histograms(self, place, chosen):
        found = {}
        for name, edges in self.edges().items():
            bins = len(edges) - 1
            found[name] = {"edges": edges}
            for which in ("recent", "total"):
                found[name][which] = [[0] * bins for _ in place]
                found[name][f"{which}_outside"] = [[0, 0] for _ in place]
        places = {
            name: {edge: k for k, edge in enumerate(edges)} for name, edges in self.edges().items()
        }
        for group, second, name, value, count in self.histogrammed():
            edges = found[name]["edges"]
            for which in ("recent", "total"):
                if which == "recent" and not self.is_recent(group, second, chosen):
                    continue
                if value < edges[0] or value >= edges[-1]:
                    found[name][f"{which}_outside"][place[group]][value >= edges[-1]] += count
                    continue
                low = value
                while low not in places[name]:
                    low -= 1
                found[name][which][place[group]][places[name][low]] += count
        return found


def keep(kept, numbers):
    return {group: keys & set(numbers) for group, keys in kept.items()}


def ratio(count, by):
    return count / by if by else None


def age(second, now):
    return None if second is None else max(now - second, 0.0)
