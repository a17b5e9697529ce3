"""A backend of matplotlib whose windows nobody sees: ``matplotlib.use("module://tests.window")``.

The programs under test open, draw and close them as they do on a screen.
"""

import time
from collections.abc import Callable
from typing import ClassVar

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase, TimerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["FigureCanvas", "FigureManager"]


class _Timer(TimerBase):
    running: ClassVar[list[TimerBase]] = []

    def _timer_start(self) -> None:
        self.running.append(self)

    def _timer_stop(self) -> None:
        if self in self.running:
            self.running.remove(self)


class FigureManager(FigureManagerBase):
    """A window."""

    #: Stands for who looks at it: can close it with ``pyplot.close``, or raise KeyboardInterrupt.
    look: ClassVar[Callable[[Figure], None]]

    @classmethod
    def start_main_loop(cls) -> None:
        try:
            while windows := Gcf.get_all_fig_managers():
                for timer in _Timer.running:
                    timer._on_timer()
                for window in windows:
                    window.canvas.draw()
                    cls.look(window.canvas.figure)
                time.sleep(0.01)
        finally:
            _Timer.running.clear()


class FigureCanvas(FigureCanvasAgg):
    """What is drawn on."""

    manager_class = FigureManager
    _timer_cls = _Timer
