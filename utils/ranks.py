"""Ranks: the processes of one run, as many as msrun starts, each with its share of every batch.

msrun's environment variables tell of them; without these there is one rank, the first and only. All ranks run
the same script. They meet in MindSpore's collectives and, for their ends, in connections to the first rank:
those break at once where a process ends, whatever it was doing, so that the others end too, and one of them
says why. The first one prints and writes, the others are silent.

MindSpore is imported where it is needed: what reads and writes files does without it.
"""
import _thread
import contextlib
import functools
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

if TYPE_CHECKING:
    import mindspore as ms

GRACE = 3  # seconds to end in by itself, once another rank has ended
SHOW = 0.5  # seconds in which msrun shows the last line; it kills all ranks once one has failed
WAIT = 10  # seconds for the first rank to say why a run ends
ADDRESS_BYTES = 64

_state = {"rank": 0, "size": 1}
_watch: "Watch | None" = None


def rank() -> int:
    """This process's number, from 0."""
    return _state["rank"]


def size() -> int:
    """How many ranks there are; 1 without msrun."""
    return _state["size"]


def is_first() -> bool:
    """Whether this rank prints and writes; before `init`, as msrun's variables have it."""
    if _watch or "MS_ROLE" not in os.environ:
        return rank() == 0
    return os.environ["MS_ROLE"] == "MS_WORKER" and os.environ.get("MS_NODE_ID", "0") == "0"


def silence_others() -> None:
    """Let this process print nothing to standard output unless it is the first rank."""
    if not is_first():
        sys.stdout = open(os.devnull, "w")


def share_cores() -> None:
    """Before `init`, where ranks are on one CPU: take an equal part of its cores, unless msrun bound some.

    Otherwise each rank's threads would be as many as there are cores.
    """
    if os.environ.get("MS_ROLE") != "MS_WORKER" or not hasattr(os, "sched_getaffinity"):
        return
    number, count = int(os.environ.get("DEVICE_ID", 0)), int(os.environ["MS_WORKER_NUM"])
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.suppress(OSError):  # the parent has gone
        if os.sched_getaffinity(os.getppid()) == set(cores) and count <= len(cores):
            os.sched_setaffinity(0, cores[number * len(cores) // count:(number + 1) * len(cores) // count])


def init() -> None:
    """Join the other ranks, once the device is set and before any work; msrun's scheduler ends in here."""
    global _watch
    if "MS_ROLE" not in os.environ or _watch:
        return
    from mindspore import communication
    # On a CPU, seconds that a collective waits for; the connections tell of ranks that have ended.
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", "-1")
    try:
        communication.init()
    except RuntimeError:
        if os.environ["MS_ROLE"] == "MS_SCHED":  # a rank was killed: its peers say so
            os._exit(1)
        raise
    _state.update(rank=communication.get_rank(), size=communication.get_group_size())
    if size() > 1:
        _watch = Watch()
        _watch.begin()  # now that `finish` knows of it
        silence_others()  # where msrun's variables told no number
        print(f"{size()} ranks, each with its share of every batch", flush=True)


# Collectives

def gather(rows: np.ndarray) -> np.ndarray:
    """Every rank's rows, (k, ...) each, one rank's after another's: (size k, ...), the same bytes.

    Gathered as int32, of which each device's backend knows how to.
    """
    if size() == 1:
        return rows
    import mindspore as ms
    from mindspore import ops
    content = np.ascontiguousarray(rows).tobytes()
    padded = content + bytes(-len(content) % 4)
    gathered = ops.AllGather()(ms.Tensor(np.frombuffer(padded, np.int32))).asnumpy()
    parts = gathered.view(np.uint8).reshape(size(), -1)[:, :len(content)]
    return np.frombuffer(parts.tobytes(), rows.dtype).reshape(-1, *rows.shape[1:])


def from_first(ask: Callable[[], int]) -> int:
    """What the first rank answers, a whole number, in every rank; the others are not asked."""
    return int(gather(np.array([ask() if is_first() else 0], np.int64))[0])


def take_statistics(network: "ms.nn.Cell") -> None:
    """Give every rank the first one's moving averages of batch normalization, which each has of its images.

    So that all test the network that the first one saves.
    """
    if size() == 1:
        return
    import mindspore as ms
    from mindspore import ops
    own = [parameter for parameter in network.untrainable_params() if parameter.dtype == ms.float32]
    if own:
        values = np.concatenate([parameter.asnumpy().ravel() for parameter in own])
        first = gather(values[None])[0]
        for parameter, value in zip(own, np.split(first, np.cumsum([p.size for p in own])[:-1])):
            ops.assign(parameter, ms.Tensor(value.reshape(parameter.shape)))


def reducers(parameters: "list[ms.Parameter]") -> tuple[Callable, Callable] | tuple[None, None]:
    """For a compiled step: the sum over the ranks of a float32 tensor, and of the gradients of parameters.

    None and None where there is one rank.
    """
    if size() == 1:
        return None, None
    from mindspore import nn, ops
    return ops.AllReduce(), nn.DistributedGradReducer(parameters, mean=False)


# What is printed and written

def by_first(write: Callable) -> Callable:
    """A function that writes, for the first rank alone; in the others it does nothing."""
    @functools.wraps(write)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return write(*args, **kwargs) if is_first() else None
    return guarded


# Ends

def others_end() -> None:
    """The rest is for the first rank: the others end here, and wait for its end."""
    if not is_first():
        sys.exit(0)


def finish(status: int, line: str) -> int:
    """End a script in all its ranks, with one line at most; return the exit status.

    Args:
        status: this rank's; 0: it is done, and waits for the others.
        line: for standard error; empty: none.
    """
    if _watch:
        return _watch.finish(status, line)
    if is_first():
        if line:
            print(line, file=sys.stderr)
    elif status and os.environ["MS_ROLE"] == "MS_WORKER":
        time.sleep(WAIT)  # the first rank says it; msrun would kill that one if this one ended before
    if status and "MS_ROLE" in os.environ:
        time.sleep(SHOW)
    return status


def unexpected(error: BaseException) -> tuple[int, str]:
    """Exit status and text of an error that no script foresees: often the end of another rank.

    Raises:
        BaseException: the error, where there is one rank.
    """
    if not _watch:
        raise error
    _watch.over.wait(SHOW)
    return 1, "".join(traceback.format_exception(error)).rstrip()


class Watch:
    """Connections of the first rank with each other one, over which they tell of their ends, in a JSON line.

    One that breaks without such a line is that of a process that was killed.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.verdict: int | None = None  # all ranks' exit status
        self.said = False  # why, by this rank
        self.over = threading.Event()  # there is a verdict
        self.finishing = False  # the main thread has nothing left to clean up
        self.done = threading.Semaphore(0)  # in the first rank: another one is done
        self.connections = self._connect()  # by the number of the rank at the other end

    def begin(self) -> None:
        """Listen to the others."""
        for number in self.connections:
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()

    @staticmethod
    def _connect() -> dict[int, BinaryIO]:
        """In the first rank a connection with each other one, in these the one with the first."""
        scheduler = os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"])
        family = socket.getaddrinfo(*scheduler, type=socket.SOCK_DGRAM)[0][0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(scheduler)
            own = probe.getsockname()[0]  # on the network that the ranks share
        server = socket.create_server((own, 0), family=family, backlog=size()) if rank() == 0 else None
        secret = secrets.token_hex(8)
        said = f"{own} {server.getsockname()[1]} {secret}" if server else ""
        told = gather(np.frombuffer(said.encode().ljust(ADDRESS_BYTES), np.uint8))[:ADDRESS_BYTES]
        if not server:
            address, port, secret = told.tobytes().decode().split()
            connection = socket.create_connection((address, int(port))).makefile("rwb")
            connection.write(f"{rank()} {secret}\n".encode())
            connection.flush()
            return {0: connection}
        found = {}
        while len(found) < size() - 1:
            connection = server.accept()[0].makefile("rwb")
            number, _, given = connection.readline().decode().strip().partition(" ")
            if given == secret:  # not a stranger
                found[int(number)] = connection
        server.close()
        return found

    def _listen(self, number: int) -> None:
        """Wait for what another rank says of its end, or for its end."""
        try:
            message = json.loads(self.connections[number].readline())
        except (OSError, ValueError):
            line = (f"{os.path.basename(sys.argv[0])}: error: rank {number} of {size()} was killed or has "
                    "crashed; run the command again, of train.py with --resume")
            message = {"status": 1, "line": line if rank() <= 1 else ""}
        if message["status"] == 0 and rank() == 0:
            self.done.release()
            return
        self._decide(message["status"], message["line"])
        if message["status"] and not self.finishing:
            _thread.interrupt_main()  # it cleans up, unless it waits in a collective for a rank that has gone
            time.sleep(GRACE)
        if message["status"]:
            self._leave()

    def _decide(self, status: int, line: str) -> None:
        """Let the run end so, and say why, unless its end is decided."""
        with self.lock:
            if self.verdict is None:
                self.verdict, self.said = status, bool(line)
                if line:  # at once: msrun kills all ranks within a second of a failed one
                    print(line, file=sys.stderr, flush=True)
        self.over.set()
        self.done.release()

    def finish(self, status: int, line: str) -> int:
        """See `finish` above."""
        try:
            self.finishing = True
            if status and rank() and self.verdict is None:
                self._tell(status, line)  # the first rank says it
                self.over.wait(WAIT)
            elif not status and rank():
                self._tell(0, "")
                self.over.wait()
            elif not status:
                for _ in self.connections:
                    self.done.acquire()
        except KeyboardInterrupt:
            status, line = 130, f"{os.path.basename(sys.argv[0])}: stopped" if rank() == 0 else ""
            self.over.wait(SHOW)  # where it came from another rank
        for number in (signal.SIGINT, signal.SIGTERM):  # once is enough
            signal.signal(number, signal.SIG_IGN)
        self._decide(status, line)
        if self.verdict:
            self._leave()
        if rank() == 0:
            self._tell(0, "")
        return 0

    def _tell(self, status: int, line: str) -> None:
        for connection in self.connections.values():
            with contextlib.suppress(OSError):
                connection.write(json.dumps({"status": status, "line": line}).encode() + b"\n")
                connection.flush()

    def _leave(self) -> NoReturn:
        """End this process as was decided, without MindSpore's own end, which waits for the other ranks."""
        with self.lock:
            if self.said:
                time.sleep(SHOW)
            if rank() == 0:
                self._tell(self.verdict, "")
            sys.stdout.flush()
            os._exit(self.verdict)
