"""Scripts of the project, each run in its own process: a fork of one that has imported MindSpore.

So a run starts in a fiftieth of a second instead of two, and is otherwise the real one: the script is
executed as __main__ in its working folder, with its own output, exit status, signals and limits. `--arch`
also takes the networks of two_layers.py, and the toy set is drawn once for all. Some tests start Python
itself, so that the imports are tested too.

    with Forks() as forks:
        run = forks.start(folder, "train.py", "--epoch", 1).finish()
"""
import argparse
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from comparison.jobs import end_with_parent
from utils.options import Parser

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300  # until a run is killed
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")  # audit events, besides "open" for writing


class Run:
    """A script that has been started; after its end its output is in `out` and `err`."""

    def __init__(self, connection: socket.socket, request: dict[str, Any]) -> None:
        self.connection, self.request = connection, request
        connection.sendall(json.dumps(request).encode() + b"\n")
        self.answers = connection.makefile()
        self.pid = json.loads(self.answers.readline())
        self.returncode = None

    def poll(self, seconds: float = 0) -> int | None:
        """The exit status, negative for a signal; None: it still runs."""
        if self.returncode is None and select.select([self.connection], [], [], seconds)[0]:
            self.returncode, self.out, self.err = json.loads(self.answers.readline())
            self.answers.close()
            self.connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def finish(self) -> "Run":
        """Wait for its end."""
        if self.poll(SECONDS) is None:
            self.send_signal(signal.SIGKILL)
            raise TimeoutError(self.request["command"])
        return self


class Forks(contextlib.ExitStack):
    """The process that is forked, started when it is first needed; it and all runs end with the block."""

    @functools.cached_property
    def address(self) -> str:
        """Where it listens."""
        path = f"{self.enter_context(tempfile.TemporaryDirectory())}/socket"
        server = self.enter_context(subprocess.Popen(
            [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}))
        assert server.stdout.readline() == "ready\n"
        return path

    def start(self, folder: Path, script: str, *options: object, limits: dict[str, int] | None = None,
              stop: dict[str, Any] | None = None, options_only: bool = False,
              environment: dict[str, str] | None = None, terminal: str = "") -> Run:
        """Start a script in a working folder.

        Args:
            limits: the process's limits, by name, such as RLIMIT_FSIZE.
            stop: arguments of `Stop` beside the folder.
            options_only: end with status 0 as soon as the options have been parsed.
            environment: further variables.
            terminal: let it write to a terminal, which is closed once it has shown these words.
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        return Run(connection, {"command": [str(ROOT / script), *map(str, options)], "folder": str(folder),
                                "limits": limits or {}, "stop": stop, "options_only": options_only,
                                "environment": environment or {}, "terminal": terminal})

    def kill(self, folder: Path, change: str, number: int, script: str, *options: object) -> str:
        """Run a script until it is killed just before a change of a file; return its output until then."""
        run = self.start(folder, script, *options, stop={"change": change, "number": number}).finish()
        assert run.returncode == -signal.SIGKILL, run.err
        return run.out

    def start_ranks(self, size: int, folder: Path, script: str, *options: object,
                    of: dict[int, dict[str, Any]] | None = None) -> list[Run]:
        """Start a script as msrun does: a process for each rank, and a scheduler, which ends with the tests.

        Args:
            of: further arguments of `start` by rank; "options" instead of `options`.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        common = {"MS_WORKER_NUM": str(size), "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(port),
                  "MS_TOPO_TIMEOUT": str(SECONDS)}
        self.start(folder, script, *options, environment={**common, "MS_ROLE": "MS_SCHED"})
        runs = []
        for rank in range(size):
            more = {"options": options, **(of or {}).get(rank, {})}
            own = {**common, "MS_ROLE": "MS_WORKER",
                   **dict.fromkeys(("MS_NODE_ID", "RANK_ID", "DEVICE_ID"), str(rank))}
            runs.append(self.start(folder, script, *more.pop("options"), environment=own, **more))
        return runs


class Stop:
    """An audit hook that stops the process just before a change of a file below a folder.

    Args:
        change: the one to stop at, such as "os.rename .x.tmp" or "open x" for writing.
        number: how often it has been seen before.
        signal: sent to stop the process.
        bytes: instead, let the file that is opened here, and every other, only grow to that many bytes more
            than it has, and end the process then.
    """

    def __init__(self, folder: str, change: str, number: int = 0, signal: int = signal.SIGKILL,
                 bytes: int | None = None) -> None:
        self.folder, self.change, self.left = folder, change, number
        self.signal, self.bytes = signal, bytes

    def __call__(self, event: str, arguments: tuple) -> None:
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in CHANGES) or not isinstance(arguments[0], (str, Path)):
            return
        path = os.path.abspath(arguments[0])
        if (not path.startswith(self.folder) or f"{event} {os.path.basename(path)}" != self.change
                or os.path.isdir(path)):
            return
        self.left -= 1
        if self.left != -1:
            return
        if self.bytes is None:
            os.kill(os.getpid(), self.signal)
        else:
            size = self.bytes + (os.path.getsize(path) if os.path.exists(path) else 0)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def serve(path: str) -> None:
    """Answer each connection's request with a run's process id and, after its end, exit status and output."""
    import selection  # noqa: F401  this takes the two seconds
    import train  # noqa: F401
    from comparison import charts  # noqa: F401
    from datasets import SOURCES
    from models import NETWORKS
    from two_layers import NETWORKS as SMALL

    NETWORKS.update(SMALL)
    toy = SOURCES["toy"].read(Path())  # drawn once
    SOURCES["toy"] = dataclasses.replace(SOURCES["toy"], read=lambda _: toy)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if not os.fork():
            end_with_parent()
            listener.close()
            answer(connection)
        connection.close()


def answer(connection: socket.socket) -> NoReturn:
    """Start a run and wait for its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile().readline())
    outputs = [os.pipe() for _ in range(2)]
    pid = os.fork()
    if not pid:
        end_with_parent()
        connection.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, (_, writer) in enumerate(outputs, 1):
            os.dup2(writer, descriptor)
        execute(**request)
    for _, writer in outputs:
        os.close(writer)
    with contextlib.suppress(BrokenPipeError), ThreadPoolExecutor() as pool:
        connection.sendall(f"{pid}\n".encode())
        texts = pool.map(lambda pipe: open(pipe[0], encoding="utf8").read(), outputs)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(json.dumps([status, *texts]).encode() + b"\n")
    os._exit(0)


def execute(command: list[str], folder: str, limits: dict[str, int], stop: dict[str, Any] | None,
            options_only: bool, environment: dict[str, str], terminal: str = "") -> NoReturn:
    """Become a run."""
    if terminal:
        open_terminal(terminal.encode())
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    sys.argv = command
    sys.path[0] = os.path.dirname(command[0])
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if stop:
        sys.addaudithook(Stop(folder, **stop))
    if options_only:
        for parser in (Parser, argparse.ArgumentParser):
            parser.parse_args = lambda *arguments, parse=parser.parse_args: parse(*arguments) and sys.exit(0)
    status = 1
    try:
        runpy.run_path(command[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def open_terminal(words: bytes) -> None:
    """Write to a terminal of this process's own, and close it once it has shown these words."""
    os.setsid()
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(slave, number)
        setattr(sys, name, open(number, "w", buffering=1, closefd=False))
    os.close(slave)

    def read() -> None:
        shown = b""
        while words not in shown:
            shown += os.read(master, 10_000)
        os.close(master)

    threading.Thread(target=read, daemon=True).start()


if __name__ == "__main__":
    serve(sys.argv[1])
