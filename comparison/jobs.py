"""Parallel commands: a pool of threads runs them, and each ends with the thread that started it."""
import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from utils import distributed

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Jobs(ThreadPoolExecutor):
    """Threads that run commands, one per GPU or NPU in `devices`, or else each on its part of the cores."""

    def __init__(self, threads: int, devices: Sequence[str] = ()) -> None:
        self.threads = len(devices) or threads
        self.devices, self.parts = list(devices), [] if devices else split_cores(threads)
        self.own = threading.local()
        self.started: list[subprocess.Popen] = []
        self.stopped = False
        super().__init__(self.threads, initializer=self._begin)

    def _begin(self) -> None:
        """In a new thread: choose the device or cores of its commands."""
        names = ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES") if self.devices else ()
        self.own.variables = dict.fromkeys(names, self.devices.pop() if self.devices else "")
        if self.parts and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.parts.pop())

    def run(self, command: Sequence[str], output: Path) -> int:
        """In a thread of the pool: run a command and append its output to a file; return its exit status."""
        with open(output, "ab") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                       env={**os.environ, **self.own.variables}, preexec_fn=end_with_parent)
        self.started.append(process)
        if self.stopped:
            process.terminate()
        return process.wait()

    def stop(self) -> None:
        """End all commands and start no more."""
        signal.alarm(0)  # that of run_script would not wait for the ends of the commands
        self.stopped = True
        self.shutdown(wait=False, cancel_futures=True)
        for process in self.started:
            process.terminate()


def split_cores(parts: int) -> list[list[int]]:
    """The cores that this process may use, in parts of one core or more."""
    cores = distributed.cores()
    return [cores[i * len(cores) // parts:(i + 1) * len(cores) // parts] or [cores[i % len(cores)]]
            for i in range(parts)]


def end_with_parent() -> None:
    """In a new process: receive SIGKILL when the parent thread ends, and leave Ctrl-C to the parent."""
    with contextlib.suppress(AttributeError):  # macOS has no such call
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
