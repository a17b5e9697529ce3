"""What a stream of packets says of the detector: metrics and alarms.

Where each metric is, in a `Snapshot` ``s`` of G io_groups, S seconds, N channels, T tiles and
bins. What is by second is a number a second; the rest has its unit beside it. ``s.totals`` has
what ``s.history`` has, of all since the beginning; and a histogram has ``recent`` beside
``total``. FIFO flags are taken by bits, as is the external trigger, which is bit 1.

============================  ====================================================  ==========
packets by type               ``s.history["data"]``; also test, config_write,       (G, S)
                              config_read, timestamp, message, sync, trigger
packets of all types          ``s.packets``                                         (G, S)
part of a type                ``s.fraction("data", by="packets")``                  (G, S)
words by letter: D            ``s.history["upstream"] + s.history["downstream"]``   (G, S)
words by letter: S, T         ``s.history["sync"]``; also trigger                   (G, S)
words by letter: all others   ``s.fault_history.get("unknown word")``               (S,)
parity errors                 ``s.parity_error_fraction``                           (G, S)
... of data packets           ``s.fraction("data_parity_errors")``                  (G, S)
... by channel or above       ``s.channels.fraction("data_parity_errors")``         (N,)
rate by tile                  ``s.tiles["history"]``                                (T, S)
rate by channel [Hz]          ``s.channels.rate``; places: ``s.channels.address``   (N,)
... by chip and others [Hz]   ``s.channels.by("chip").rate``; also io_channel,      (chips,)
                              tile, io_group; each metric of channels has these
upstream and downstream       ``s.history["upstream"]``; also downstream            (G, S)
configuration                 ``s.history["write_upstream"]``; also                 (G, S)
                              write_downstream, read_upstream, read_downstream,
                              config_parity_errors
hot channels                  ``s.channels.hottest(100)``, the most first           (100,)
... part of all hits          ``s.channels.share``                                  (N,)
channels to be disabled       ``s.noisy(5.0)``, faster than so many Hz              by chip
ADC mean                      ``s.channels.adc_mean()``                             (N,)
ADC RMS                       ``s.channels.adc_rms()``                              (N,)
ADC spectrum                  ``s.histograms["adc"].total``                         (G, bins)
FIFO more than half full      ``s.fraction("local_fifo_half")``; also               (G, S)
                              shared_fifo_half
FIFO full                     ``s.fraction("local_fifo_full")``; also               (G, S)
                              shared_fifo_full
FIFO less than half full      ``1 - s.fraction("local_fifo_flagged")``; also        (G, S)
                              shared_fifo_flagged
... by channel or above       ``s.channels.fraction("shared_fifo_full")``           (N,)
sync period - 1e7 [ticks]     ``s.sync_period.mean``; also sigma, syncs                (G,)
... in time [ticks]           ``s.sync_history``                                    (G, S)
... spectrum                  ``s.histograms["sync_period"].total``                 (G, bins)
readout delay [264 ticks]     ``s.histograms["readout_delay"].total``               (G, bins)
... within a word [ticks]     ``s.histograms["readout_delay_phase"].total``         (G, bins)
trigger correlation           ``s.histograms["trigger"].total``                     (G, bins)
... sum of datawords          ``s.histograms["trigger_adc"].total``                 (G, bins)
trigger to trigger            ``s.histograms["trigger_to_trigger"].total``          (G, bins)
part with invalid address     ``s.invalid_addresses(range(11, 111))``               one number
messages                      ``s.history["messages"]``; also bytes, words          (G, S)
words a message               ``s.histograms["words_per_message"].total``           (G, bins)
faults                        ``s.fault_history``, ``s.faults``, by kind            (S,)
age of the last message [s]   ``s.message_age``                                     (G,)
age of the last S [s]         ``s.sync_age``                                        (G,)
============================  ====================================================  ==========

Not here: how many messages were lost, which cannot be known, as they bear no number (seconds
without messages or syncs, truncated messages and full FIFOs hint at it); what letter an unknown
word has; charge in electrons, for which pedestals are needed (`streamer.events`; it is linear
in the sums of datawords); unwrapped time (`streamer.clock`) and hits that come too late for an
event (`streamer.events`); places in space (`streamer.geometry`); and the file's size, which is
not in the stream (``streamer stat``).

The parts, from packets to alarms. `metrics` leads through all of it.

- ``runs``: the io_group and second of each packet. ``rest``: all packets but data are counted.
- ``hits``: data packets are counted, by numpy; or, to the same result, by ``compiled``, with
  the loops of ``kernels`` and ``fetching``, if there is numba.
- ``marks``, ``triggers``, ``successive``: which hits, and triggers, come after a trigger.
- ``counters``: what is counted of an io_group; ``recent``: by second and span of time.
- ``store``, ``channels``: what is counted of a channel, in the memory of ``places``; what would
  overflow there, and what damaged packets name, is ``sparse``. ``addresses``: channels as
  numbers. ``faults``.
- ``counted``: all of this together. ``take``: a snapshot, with seconds of ``axis``, and channels
  summed up by ``columns``; ``snapshot`` and ``tables``: what it is.
- ``options``: the parameters.
- ``rules``, ``alarms``: what somebody should know of at once.
"""

from streamer.monitor.alarms import AlarmEvent, Alarms
from streamer.monitor.metrics import Monitor
from streamer.monitor.rules import RulesError
from streamer.monitor.snapshot import Histogram, Snapshot, SyncPeriod
from streamer.monitor.tables import Table

__all__ = [
    "AlarmEvent",
    "Alarms",
    "Histogram",
    "Monitor",
    "RulesError",
    "Snapshot",
    "SyncPeriod",
    "Table",
]
