"""Commands run as processes that end with this one, several at a time, each with its part of the machine."""
import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Place:
    """What a process runs on.

    Args:
        cores: of the CPU; (): all.
        card: number of a GPU or NPU; None: the script's own choice.
    """
    cores: tuple[int, ...] = ()
    card: str | None = None


def usable_cores() -> int:
    """Cores of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_places(jobs: int, cards: Sequence[str] = ()) -> list[Place]:
    """A place for each job: a card of its own, or an equal part of the cores that this process may use."""
    if cards:
        return [Place(card=card) for card in cards]
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return [Place()] * jobs
    cores = sorted(os.sched_getaffinity(0))
    parts = [cores[i * len(cores) // jobs:(i + 1) * len(cores) // jobs] for i in range(jobs)]
    return [Place(tuple(part or cores[i % len(cores):][:1])) for i, part in enumerate(parts)]


class Processes:
    """Runs commands in threads, one a place, and ends what still runs at `stop`."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = queue.SimpleQueue()
        for place in places:
            self.places.put(place)
        self.running: set[subprocess.Popen] = set()
        self.lock = threading.Lock()
        self.stopped = False

    def run(self, command: Sequence[str], output: Path) -> int:
        """Run a command to its end, its output appended to a file; return its exit status.

        Waits for a place first. Called from several threads. The child gets SIGKILL when this process dies.
        """
        place = self.places.get()
        try:
            with open(output, "ab") as file, self.lock:
                if self.stopped:
                    return -signal.SIGTERM
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                           env=self._environment(place), preexec_fn=lambda: prepare(place))
                self.running.add(process)
            status = process.wait()
            with self.lock:
                self.running.discard(process)
            return status
        finally:
            self.places.put(place)

    @staticmethod
    def _environment(place: Place) -> dict[str, str]:
        if place.card is None:
            return dict(os.environ)
        return {**os.environ, "CUDA_VISIBLE_DEVICES": place.card, "ASCEND_RT_VISIBLE_DEVICES": place.card}

    def stop(self) -> None:
        """End what runs, and start nothing more."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()


def prepare(place: Place) -> None:
    """In a child, before its command: take its cores; die with the parent where the system can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    if place.cores:
        os.sched_setaffinity(0, place.cores)
