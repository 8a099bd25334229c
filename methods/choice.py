"""What a method returns, and which ranks of a score it keeps."""
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Choice:
    """A coreset.

    Args:
        kept: ids of its images, int64 (size,), ascending.
        score: float64 (n,), by which all images were ranked; None: the method has none.
    """
    kept: np.ndarray
    score: np.ndarray | None = None


def coreset_size(n: int, rate: float) -> int:
    """Images in a coreset of n * rate, with the release's rounding: for some n one more or less."""
    return round(n * (0.5 + rate / 2)) - round(n * (0.5 - rate / 2))


def middle(order: np.ndarray, size: int) -> np.ndarray:
    """The middle `size` of the n ids in `order`: from rank round(n (0.5 - rate / 2)) on, rate = size / n.

    That is the release's first rank. round((n - size) / 2) is not: where n - size is odd, it is now and
    then one off, as the release rounds a floating-point number just beside the half.
    """
    n = len(order)
    first = round(n * (0.5 - size / n / 2))
    return order[first:first + size]


def keep_lowest(score: np.ndarray, size: int, generator: np.random.Generator) -> Choice:
    """Keep the `size` images of lowest score, ties in random order.

    Many scores are counts: ties by id would drop whole classes of a data set that is sorted by class.
    """
    return Choice(np.sort(ranking(score, generator)[:size]), score)


def keep_highest(score: np.ndarray, size: int, generator: np.random.Generator) -> Choice:
    """Keep the `size` images of highest score, ties in random order."""
    return Choice(np.sort(ranking(score, generator)[len(score) - size:]), score)


def ranking(score: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Ids by ascending score, ties in random order, int64 (n,)."""
    return np.lexsort((generator.permutation(len(score)), score))
