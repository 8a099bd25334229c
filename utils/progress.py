"""Progress bars."""
import sys
from collections.abc import Callable

from tqdm import tqdm

from utils import distributed

MINUTE = 60


class ProgressBar(tqdm):
    """tqdm on a terminal, else (a log file, a batch job) one line per minute.

    Args:
        done: units that an earlier run has finished.
        state: gives a few words for the bar's end, when it is shown.
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0,
                 state: Callable[[], str] | None = None) -> None:
        self.state, self.plain = state, not sys.stderr.isatty()
        # miniters 1: else a thread of tqdm's shows the bar where steps become slower, and asks for its state.
        super().__init__(total=total, initial=done, desc=title, unit=unit, leave=False, miniters=1,
                         delay=MINUTE if self.plain else 0, mininterval=MINUTE if self.plain else 1,
                         disable=not distributed.is_first())

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the bar; `msg` is empty where tqdm would erase it."""
        self.postfix = self.state() if self.state else None
        if not self.plain:
            super().display(msg, pos)
        elif msg is None:
            print(self, flush=True)
