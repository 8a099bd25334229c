"""Ranks: the processes of one run that msrun starts, each with its shard of every batch.

msrun's environment variables tell of them; without these there is one rank, the first. All ranks run the same
script and meet in MindSpore's collectives. The first one prints and writes. msrun ends all of them when one
fails.

MindSpore is imported where it is needed: what reads and writes files does without it.
"""
import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import mindspore as ms

# On a CPU a collective fails after that many seconds, by default 30, in which the first rank may still be
# hashing or writing large files.
CPU_SECONDS = 1800
SENDING = 3  # seconds in which what a rank has sent arrives

_state = {"rank": 0, "size": 1}


def rank() -> int:
    """This process's number, from 0."""
    return _state["rank"]


def size() -> int:
    """How many ranks there are; 1 without msrun."""
    return _state["size"]


def is_first() -> bool:
    """Whether this rank prints and writes; before `init`, as msrun's variables have it."""
    if size() > 1 or "MS_ROLE" not in os.environ:
        return rank() == 0
    return os.environ["MS_ROLE"] == "MS_WORKER" and os.environ.get("MS_NODE_ID", "0") == "0"


def silence_others() -> None:
    """Let this process print nothing to standard output unless it is the first rank."""
    if not is_first():
        sys.stdout = open(os.devnull, "w")


def cores() -> list[int]:
    """The CPU's cores that this process may use; all of them where the system does not tell, as on macOS."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def bind_cores() -> None:
    """Before `init`, where ranks are on one CPU: take an equal part of its cores, unless msrun bound some.

    Otherwise each rank's threads would be as many as there are cores.
    """
    if os.environ.get("MS_ROLE") != "MS_WORKER" or not hasattr(os, "sched_setaffinity"):
        return
    number, count = int(os.environ.get("DEVICE_ID", 0)), int(os.environ["MS_WORKER_NUM"])
    own = cores()
    with contextlib.suppress(OSError):  # the parent has gone
        if os.sched_getaffinity(os.getppid()) == set(own) and count <= len(own):
            os.sched_setaffinity(0, own[number * len(own) // count:(number + 1) * len(own) // count])


def init() -> None:
    """Join the other ranks, once the device is set and before any work; msrun's scheduler ends in here."""
    if "MS_ROLE" not in os.environ or size() > 1:
        return
    from mindspore import communication
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", str(CPU_SECONDS))
    communication.init()
    _state.update(rank=communication.get_rank(), size=communication.get_group_size())
    silence_others()  # where msrun's variables gave no number
    print(f"{size()} ranks, each with its shard of every batch", flush=True)


def all_gather(rows: np.ndarray) -> np.ndarray:
    """Every rank's rows, (k, ...) each, one rank's after another's: (size k, ...), the same bytes.

    Gathered as int32, which each device's backend supports.
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


def broadcast(ask: Callable[[], int]) -> int:
    """A whole number that the first rank computes, in every rank; the others do not compute it."""
    return int(all_gather(np.array([ask() if is_first() else 0], np.int64))[0])


def broadcast_running_statistics(network: "ms.nn.Cell") -> None:
    """Give all ranks the first one's running statistics of batch normalization, so all test what it saves."""
    if size() == 1:
        return
    import mindspore as ms
    from mindspore import ops
    for parameter in network.untrainable_params():
        if parameter.dtype == ms.float32:
            ops.assign(parameter, ms.Tensor(all_gather(parameter.asnumpy()[None])[0]))


def on_first(write: Callable) -> Callable:
    """A function that writes, for the first rank alone; in the others it does nothing."""
    @functools.wraps(write)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return write(*args, **kwargs) if is_first() else None
    return guarded


def let_arrive() -> None:
    """Before another rank than the first one ends well: wait for what it has sent.

    A collective returns once it has received; the end of the process drops what is still to be sent, and the
    first rank would wait for it until the time limit.
    """
    if size() > 1 and not is_first():
        time.sleep(SENDING)


def end_others() -> None:
    """The first rank continues alone: the others end here."""
    if not is_first():
        let_arrive()
        sys.exit(0)
    _state["size"] = 1
