"""A recorder of training dynamics (dynamics.py says what they are) for a training loop in any framework."""
import os
from pathlib import Path
from typing import Any

import numpy as np

from .checks import as_array, number


class Recorder:
    """Records the dynamics of a training run, float16 (epochs, 3, n).

    An example that an epoch did not show keeps its numbers of the epoch before; before it was first shown, it
    has those of the first epoch that showed it. If an epoch shows it twice, the last time counts. The
    README of this project has a loop for PyTorch 2.1 or later.

    Args:
        n: number of training examples.
        path: a .npy file that is replaced after every epoch, with NaN for examples that have not been shown
            yet. Without it the dynamics are only in memory (`dynamics`, 6 n bytes per epoch) until `save`.
    """

    def __init__(self, n: int, path: str | os.PathLike[str] | None = None) -> None:
        self.n, self.path = int(number(n, "n", 1, whole=True)), path
        self.dynamics = np.empty((0, 3, n), np.float16)
        self.epoch = np.full((3, n), np.nan, np.float16)

    @np.errstate(over="ignore")  # where a difference of logits overflows, the probability is 0
    def update(self, logits: Any = None, labels: Any = None, ids: Any = None, *, probabilities: Any = None
               ) -> None:
        """Record a batch of b examples, given as tensors on a CPU or what numpy.asarray takes.

        Args:
            logits: (b, k), of any float type. For a single logit z of two classes, pass the columns 0 and z.
            labels: whole numbers (b,), the columns of the classes.
            ids: whole numbers (b,), positions in the training set.
            probabilities: (b, k), instead of logits.

        Raises:
            ValueError: an argument is missing, of the wrong type or shape, out of range or not finite, as
                logits are after training has diverged. Nothing of the batch is recorded.
        """
        if (logits is None) == (probabilities is None):
            raise ValueError("update: pass either logits or probabilities")
        source, values = ("logits", logits) if probabilities is None else ("probabilities", probabilities)
        if hasattr(values, "float"):
            values = values.float()  # a tensor, perhaps of bfloat16, which NumPy lacks
        p = as_array(values, source).astype(np.float32)
        if p.ndim != 2 or p.shape[1] < 2:
            raise ValueError(f"{source}: shape {p.shape}, not (examples, classes) with two classes or more")
        labels, ids = as_array(labels, "labels"), as_array(ids, "ids")
        for name, array, end in (("labels", labels, p.shape[1]), ("ids", ids, self.n)):
            if array.dtype.kind not in "iu" or array.shape != p.shape[:1]:
                raise ValueError(f"{name}: {array.dtype} {array.shape}, not whole numbers {p.shape[:1]}")
            outside = array[(array < 0) | (array >= end)]
            if len(outside):
                raise ValueError(f"{name}: {outside[0]} is not in 0..{end - 1}")
        bad = np.count_nonzero(~np.isfinite(p).all(axis=1))
        if bad:
            raise ValueError(f"{source}: not finite for {bad} of {len(p)} examples; has training diverged?")
        if logits is not None:
            p = softmax(p)
        elif (p < 0).any() or (np.abs(p.sum(axis=1) - 1) > 0.01).any():  # half precision is off by less
            raise ValueError("probabilities: some are negative or do not add up to 1")
        y = labels[:, None] == np.arange(p.shape[1])
        margin = p[y] - np.where(y, -1, p).max(axis=1)
        numbers = np.stack([p[y], margin, np.linalg.norm(p - y, axis=1)])
        shown, last = np.unique(ids[::-1], return_index=True)  # of equal ids the last
        self.epoch[:, shown] = numbers[:, ::-1][:, last]

    def end_epoch(self) -> None:
        """Finish an epoch and write the file; ValueError if the epoch has shown nothing."""
        shown = ~np.isnan(self.epoch[0])
        if not shown.any():
            raise ValueError("end_epoch: no update since the last epoch")
        if len(self.dynamics):
            before = self.dynamics[-1]
            self.epoch[:, ~shown] = before[:, ~shown]
            first = shown & np.isnan(before[0])
            self.dynamics[:, :, first] = self.epoch[:, first]
        self.dynamics = np.concatenate([self.dynamics, self.epoch[None]])
        self.epoch[:] = np.nan
        if self.path is not None:
            self._write(self.path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the finished epochs as a .npy file.

        Raises:
            ValueError: no epoch is finished, or examples were never shown. In the second case the file is
                written nevertheless, with NaN for them, so that the run is not lost.
        """
        if not len(self.dynamics):
            raise ValueError("save: no epoch is finished; call end_epoch after each")
        self._write(path)
        missing = np.count_nonzero(np.isnan(self.dynamics[-1, 0]))
        if missing:
            raise ValueError(f"save: {missing} of {self.n} examples were never shown; {path} was written, "
                             "with NaN for them")

    def _write(self, path: str | os.PathLike[str]) -> None:
        """Replace a file in one step, so that it is complete whenever the run is stopped."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with open(temporary, "wb") as file:
                np.save(file, self.dynamics)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    """The softmax of each row, summed in the order of MindSpore on x86: eight lanes, four lanes, the rest.

    In another order 1 - p_y of an image that the network is sure of differs from train.py's by up to 6e-6.
    """
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    total, rest = np.zeros((len(p), 1), np.float32), p
    for width in (8, 4):
        end = rest.shape[1] // width * width
        lanes = rest[:, :end].reshape(len(p), end // width, width).sum(axis=1)
        total = total + np.add.accumulate(lanes, axis=1)[:, -1:]
        rest = rest[:, end:]
    return p / np.add.accumulate(np.hstack([total, rest]), axis=1)[:, -1:]
