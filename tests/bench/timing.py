"""Time works against each other: in turn, so that a noisy machine is noisy for all of them."""

import gc
import math
import time
from collections.abc import Callable
from statistics import median


def medians(works: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Return the median seconds of each work, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            gc.collect()
            start = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(found) for name, found in seconds.items()}


def table(title: str, rows: list[tuple[str, str, float, float, float]]) -> None:
    """Print rows of: work, unit, stock, ours, floor of the ratio."""
    print(f"\n{title}")
    print(f"{'work':46} {'stock':>12} {'ours':>12} {'ratio':>7} {'floor':>6}")
    for work, unit, stock, ours, floor in rows:
        ratio = ours / stock
        verdict = "" if ratio >= floor else "  MISSED"
        figures = f"{stock:>12,.0f} {ours:>12,.0f} {ratio:>6.1f}x {floor:>5.1f}x"
        print(f"{work:46} {figures}{verdict} {unit}")


def limits(title: str, rows: list[tuple[str, str, float, float]]) -> None:
    """Print rows of: work, unit, what was found, and how much it may be; inf if anything.

    Of the unit ``x stock``, how much it has to be.
    """
    print(f"\n{title:46} {'found':>10} {'floor':>8}")
    for work, unit, found, floor in rows:
        good = found >= floor if unit == "x stock" else found <= floor
        limit = "-" if math.isinf(floor) else f"{floor:.2f}"
        print(f"{work:46} {found:>10.2f} {limit:>8}{'' if good else '  MISSED'} {unit}")
