"""The processes (ranks) of one run that msrun starts, each with its shard of every batch.

All ranks run the same script and exchange arrays by MindSpore's collectives. The first one prints and writes.
msrun ends all of them when one fails. Without msrun's environment variables there is one rank, the first.

MindSpore is imported inside functions, since files are read and written without it.
"""
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import mindspore as ms

# Time limit of a collective on a CPU. By default it is 30 s, in which the first rank may still be hashing or
# writing large files.
CPU_SECONDS = 1800
SENDING = 3  # seconds in which what a rank has sent arrives

_state = {"rank": 0, "size": 1}


def rank() -> int:
    """This process's number, from 0."""
    return _state["rank"]


def size() -> int:
    """The number of ranks; 1 without msrun."""
    return _state["size"]


def is_first() -> bool:
    """Whether this rank prints and writes; before `init`, according to msrun's variables."""
    if size() > 1 or "MS_ROLE" not in os.environ:
        return rank() == 0
    return os.environ["MS_ROLE"] == "MS_WORKER" and os.environ.get("MS_NODE_ID", "0") == "0"


def silence_others() -> None:
    """Drop the standard output of all ranks but the first."""
    if not is_first():
        sys.stdout = open(os.devnull, "w")


def cores() -> list[int]:
    """The CPU cores that this process may use; all of them on systems without that call, such as macOS."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def init() -> None:
    """Join the other ranks, once the device is set and before any work; msrun's scheduler ends in here."""
    if "MS_ROLE" not in os.environ or size() > 1:
        return
    from mindspore import communication
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", str(CPU_SECONDS))
    communication.init()
    _state.update(rank=communication.get_rank(), size=communication.get_group_size())
    silence_others()  # now that the number is known
    print(f"{size()} ranks, each with its shard of every batch", flush=True)


def all_gather(rows: np.ndarray) -> np.ndarray:
    """Concatenate the rows of all ranks, (k, ...) each, to (size k, ...), unchanged to the bit.

    They are gathered as int32, which the backend of every device supports.
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


def broadcast(compute: Callable[[], int]) -> int:
    """The integer that the first rank computes, in every rank; the others do not compute it."""
    return int(all_gather(np.array([compute() if is_first() else 0], np.int64))[0])


def broadcast_running_statistics(network: "ms.nn.Cell") -> None:
    """Copy the first rank's running statistics of batch normalization to all: they test what it saves."""
    if size() == 1:
        return
    import mindspore as ms
    from mindspore import ops
    for parameter in network.untrainable_params():
        if parameter.dtype == ms.float32:
            ops.assign(parameter, ms.Tensor(all_gather(parameter.asnumpy()[None])[0]))


def on_first(write: Callable) -> Callable:
    """Decorate a function that writes: the first rank calls it, the others do nothing."""
    @functools.wraps(write)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return write(*args, **kwargs) if is_first() else None
    return guarded


def let_arrive() -> None:
    """Wait, at the end of a rank other than the first, until what it has sent has arrived.

    Its collectives return earlier, and at the end of the process the rest would be lost to the first rank.
    """
    if size() > 1 and not is_first():
        time.sleep(SENDING)


def end_others() -> None:
    """End all ranks but the first, which continues alone."""
    if not is_first():
        let_arrive()
        sys.exit(0)
    _state["size"] = 1
