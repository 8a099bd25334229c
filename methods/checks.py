"""Checks of what a caller gives: options as values or text, labels, arrays."""
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from .blocks import blocks

BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
SHAPES = {"features": "(n, d)", "logits": "(n, k)", "dynamics": "(epochs, 3, n)"}


class InvalidInput(ValueError):
    """One line that names the keyword, what is wrong and what to do."""

    def __init__(self, keyword: str, problem: str) -> None:
        super().__init__(f"{keyword}: {problem}")
        self.keyword, self.problem = keyword, problem


def one_of(value: Any, keyword: str, names: Iterable[str]) -> str:
    """A name that is one of `names`."""
    if value not in names:
        raise InvalidInput(keyword, f"{value!r} is none of {', '.join(names)}")
    return value


def number(value: Any, keyword: str, low: float = 0, high: float = float("inf"), whole: bool = False,
           above: bool = False) -> float:
    """A number from `low` (with `above`: above it) to `high`, which may be text, such as 1/3.

    It is rounded to six digits, as names of files have it.
    """
    try:
        upper, _, lower = str(value).partition("/")
        parsed = int(upper) if whole else float(f"{float(upper) / float(lower or 1):g}")
    except (ValueError, ZeroDivisionError):
        parsed = float("nan")
    if not (low < parsed if above else low <= parsed) or not parsed <= high or parsed == float("inf"):
        span = f"{'above' if above else 'from'} {low:g}" + (f" to {high:.10g}" if high < float("inf") else "")
        raise InvalidInput(keyword, f"{value!r} is not a {'whole ' * whole}number {span}")
    return parsed


def boolean(value: Any, keyword: str) -> bool:
    """True or False, which may be text."""
    if str(value).lower() not in BOOLEANS:
        raise InvalidInput(keyword, f"{value!r} is neither True nor False")
    return BOOLEANS[str(value).lower()]


def as_array(value: Any, keyword: str) -> np.ndarray:
    """Anything that NumPy takes as an array, among them tensors on a CPU; memory maps stay mapped."""
    try:
        return np.asarray(value)
    except Exception as error:  # of another library: a tensor on a device, with a gradient, of bfloat16
        problem = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidInput(keyword, f"NumPy cannot read this {type(value).__name__} ({problem}); pass an "
                           "array of floats on the CPU") from None


def check_labels(values: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels as whole numbers (n,); where they are strings, positions in the sorted classes, and these."""
    labels = as_array(values, "labels")
    if labels.ndim == 1 and labels.dtype == object and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iubU":
        raise InvalidInput("labels", f"{labels.dtype} {labels.shape}; pass one whole number, string or "
                           "boolean per image")
    if labels.dtype.kind == "U":
        classes, positions = np.unique(labels, return_inverse=True)
        return positions, classes
    labels = labels.astype(np.int64)
    if negative := np.count_nonzero(labels < 0):
        raise InvalidInput("labels", f"{negative} are below 0, such as {labels.min()}, which often marks "
                           "images without a label; leave these out, or give them a class from 0 on")
    return labels, None


def check_array(name: str, value: Any, n: int, first_epochs: int | None) -> np.ndarray:
    """Features or logits, float32, or dynamics of the first epochs, of n images."""
    if value is None:
        raise InvalidInput(name, f"missing; pass an array {SHAPES[name]}")
    array = as_array(value, name)
    dynamics = name == "dynamics"
    if array.dtype.kind not in "fiu" or array.ndim != 2 + dynamics or not array.size or (
            dynamics and array.shape[1] != 3):
        raise InvalidInput(name, f"{array.dtype} {array.shape}; pass floats {SHAPES[name]}")
    if (rows := array.shape[-1 if dynamics else 0]) != n:
        raise InvalidInput(name, f"of {rows} images, but there are {n} labels")
    if dynamics:
        return finished_epochs(array, first_epochs)
    with np.errstate(over="ignore"):  # a number beyond float32's range becomes infinite, which is refused
        array = array.astype(np.float32, copy=False)
    if not all(np.isfinite(array[rows]).all() for rows in blocks(array)):
        raise InvalidInput(name, "holds numbers that are not finite in float32")
    return array


def finished_epochs(dynamics: np.ndarray, first_epochs: int | None) -> np.ndarray:
    """The first epochs of checked dynamics; without those of a stopped run, at the end, that are all NaN."""
    epochs = len(dynamics)
    while epochs and np.isnan(dynamics[epochs - 1]).all():
        epochs -= 1
    if not epochs:
        raise InvalidInput("dynamics", "hold no finished epoch")
    if epochs < (first_epochs or 0):
        warnings.warn(f"dynamics: there are {epochs} epochs, first_epochs {first_epochs} becomes {epochs}",
                      stacklevel=1)
    dynamics = dynamics[:epochs][:first_epochs]
    missing = sum(~np.isfinite(epoch).all(axis=0) for epoch in dynamics) > 0
    if missing.any():
        raise InvalidInput("dynamics", f"{np.count_nonzero(missing)} of {len(missing)} images have numbers "
                           "that are not finite; leave out images that the training never showed")
    return dynamics


def check_columns(labels: np.ndarray, classes: np.ndarray | None, columns: int) -> None:
    """Make sure that labels, as `check_labels` returns them, are columns of the logits."""
    if classes is not None and len(classes) != columns:
        raise InvalidInput("labels", f"of {len(classes)} classes, but the logits have {columns} columns")
    if labels.max() >= columns:
        raise InvalidInput("labels", f"reach {labels.max()}, but the logits have {columns} columns, from 0")


def check_score(value: Any, n: int, keyword: str) -> np.ndarray:
    """A score, float64 (n,), finite."""
    score = as_array(value, keyword)
    if score.shape != (n,) or score.dtype.kind not in "fiub":
        raise InvalidInput(keyword, f"{score.dtype} {score.shape}; it has to be one number per image, ({n},)")
    score = score.astype(float)
    if missing := np.count_nonzero(~np.isfinite(score)):
        raise InvalidInput(keyword, f"{missing} of {n} numbers are not finite")
    return score
