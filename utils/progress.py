"""Progress bars."""
import sys
from collections.abc import Callable

from tqdm import tqdm

from utils import distributed

MINUTE = 60


class ProgressBar(tqdm):
    """tqdm's bar on a terminal, otherwise one line per minute; `state` returns words to show at its end."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0,
                 state: Callable[[], str] | None = None) -> None:
        self.state, self.plain = state, not sys.stderr.isatty()
        # Without miniters=1, a thread of tqdm would call `state` when steps become slower.
        super().__init__(total=total, initial=done, desc=title, unit=unit, leave=False, miniters=1,
                         delay=MINUTE if self.plain else 0, mininterval=MINUTE if self.plain else 1,
                         disable=not distributed.is_first())

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the bar; tqdm passes an empty `msg` to erase it."""
        self.postfix = self.state() if self.state else None
        if not self.plain:
            super().display(msg, pos)
        elif msg is None:
            print(self, flush=True)
