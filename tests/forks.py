"""Scripts of the project, each run in a process of its own: a fork of one that has imported MindSpore.

A run starts in a fiftieth of a second and not in two, and is in all else the real one: the script is executed
as __main__ in its working folder, with output, exit status, signals and limits of its own. `--arch` takes the
network of two_layers.py too. Some tests start Python itself, so that the imports are tested as well.

    with Forks() as forks:
        run = forks.start(folder, "train.py", "--epoch", 1).finish()
"""
import argparse
import contextlib
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
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300  # after which a run is killed
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")  # audit events, beside "open" for writing


class Run:
    """A script that has been started; once it has ended, its output is in `out` and `err`."""

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


class Forks:
    """The process that is forked, started when it is first needed."""

    def __init__(self) -> None:
        self.server = None
        self.runs = []

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        for run in self.runs:
            run.send_signal(signal.SIGKILL)
        if self.server:
            self.server.communicate()
            self.folder.cleanup()

    def start(self, folder: Path, script: str, *options: object, limits: dict[str, int] | None = None,
              stop: dict[str, Any] | None = None, options_only: bool = False,
              environment: dict[str, str] | None = None) -> Run:
        """Start a script in a working folder.

        Args:
            limits: of the process, by name, such as RLIMIT_FSIZE.
            stop: arguments of `Stop`.
            options_only: end with status 0 once its options have been understood.
            environment: further variables.
        """
        if not self.server:
            self.folder = tempfile.TemporaryDirectory()
            self.server = subprocess.Popen([sys.executable, __file__, f"{self.folder.name}/socket"],
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                           env={**os.environ, "PYTHONPATH": str(ROOT)})
            assert self.server.stdout.readline() == "ready\n"
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{self.folder.name}/socket")
        self.runs.append(Run(connection, {"command": [str(ROOT / script), *map(str, options)],
                                          "folder": str(folder), "limits": limits or {}, "stop": stop,
                                          "options_only": options_only, "environment": environment or {}}))
        return self.runs[-1]

    def start_ranks(self, number: int, folder: Path, script: str, *options: object,
                    of: dict[int, dict[str, Any]] | None = None) -> list[Run]:
        """Start a script as msrun does: a process for each rank, and a scheduler, which ends with the tests.

        Args:
            of: further arguments of `start` for a rank; "options" in place of `options`.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        common = {"MS_WORKER_NUM": str(number), "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(port),
                  "MS_TOPO_TIMEOUT": str(SECONDS)}
        self.start(folder, script, *options, environment={**common, "MS_ROLE": "MS_SCHED"})
        runs = []
        for i in range(number):
            more = {"options": options, **(of or {}).get(i, {})}
            own = {**common, "MS_ROLE": "MS_WORKER", **dict.fromkeys(("MS_NODE_ID", "RANK_ID", "DEVICE_ID"),
                                                                     str(i))}
            runs.append(self.start(folder, script, *more.pop("options"), environment=own, **more))
        return runs


class Stop:
    """An audit hook that stops the process where it is about to change a file: each time at the same place.

    Args:
        places: file to which each change below its folder is written, as "os.rename .x.tmp" or "open x", a
            line each, before it is made.
        change: the one to stop at; None: none.
        number: how often it has been seen by then, from 0.
        signal: to stop by.
        bytes: let the file, opened for writing here, and every other take that many bytes more than the file
            has, and then end the process; None: stop here.
    """

    def __init__(self, places: str, change: str | None = None, number: int = 0, signal: int = signal.SIGKILL,
                 bytes: int | None = None) -> None:
        self.folder = os.path.dirname(places)
        self.places = os.open(places, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.change, self.left, self.signal, self.bytes = change, number, signal, bytes

    def __call__(self, event: str, arguments: tuple) -> None:
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in CHANGES) or not isinstance(arguments[0], (str, Path)):
            return
        path = os.path.abspath(arguments[0])
        if not path.startswith(self.folder) or os.path.isdir(path):
            return
        change = f"{event} {os.path.basename(path)}"
        os.write(self.places, f"{change}\n".encode())
        if change != self.change:
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
    """Answer each connection's request with a run's process id and, at its end, exit status and output."""
    import train, selection  # noqa: E401, F401  this takes the two seconds
    from models import NETWORKS
    from two_layers import NAME, TwoLayers

    NETWORKS[NAME] = TwoLayers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            answer(connection)
        connection.close()


def answer(connection: socket.socket) -> NoReturn:
    """Start a run, wait for its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile().readline())
    outputs = [os.pipe() for _ in range(2)]
    pid = os.fork()
    if not pid:
        connection.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, (reader, writer) in enumerate(outputs, 1):
            os.dup2(writer, descriptor)
            os.close(reader)
            os.close(writer)
        execute(**request)
    for _, writer in outputs:
        os.close(writer)
    threading.Thread(target=end_with, args=(connection, pid), daemon=True).start()
    with contextlib.suppress(BrokenPipeError), ThreadPoolExecutor() as pool:
        connection.sendall(f"{pid}\n".encode())
        texts = pool.map(lambda pipe: open(pipe[0], encoding="utf8").read(), outputs)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(json.dumps([status, *texts]).encode() + b"\n")
    os._exit(0)


def end_with(connection: socket.socket, pid: int) -> None:
    """Kill a run when the tests have gone."""
    connection.recv(1)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def execute(command: list[str], folder: str, limits: dict[str, int], stop: dict[str, Any] | None,
            options_only: bool, environment: dict[str, str]) -> NoReturn:
    """Become a run."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    sys.argv = command
    sys.path[0] = os.path.dirname(command[0])
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if stop:
        sys.addaudithook(Stop(**stop))
    if options_only:
        parse = argparse.ArgumentParser.parse_args
        argparse.ArgumentParser.parse_args = lambda *arguments: parse(*arguments) and sys.exit(0)
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


if __name__ == "__main__":
    serve(sys.argv[1])
