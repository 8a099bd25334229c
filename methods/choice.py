"""What a method returns, and the ranks that it keeps."""
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Choice:
    """A coreset.

    Args:
        kept: ids of its images, int64 (number,), ascending.
        score: float64 (n,), by which all images were ranked; None: the method has none.
    """
    kept: np.ndarray
    score: np.ndarray | None = None


def number_to_keep(n: int, rate: float) -> int:
    """Images in a coreset of n * rate, with the release's rounding: for some n one more or less."""
    return round(n * (0.5 + rate / 2)) - round(n * (0.5 - rate / 2))


def middle(order: np.ndarray, number: int) -> np.ndarray:
    """The middle `number` of `order`: of n, from rank round(n (0.5 - rate / 2)) on, rate = number / n.

    That is the release's first rank. round((n - number) / 2) is not: where n - number is odd, it is now and
    then one off, as the release rounds a floating-point number just beside the half.
    """
    n = len(order)
    first = round(n * (0.5 - number / n / 2))
    return order[first:first + number]


def keep_lowest(score: np.ndarray, number: int, generator: np.random.Generator) -> Choice:
    """Keep the `number` images of lowest score, ties in random order.

    Many scores are counts: ties by id would drop whole classes of a data set that is sorted by class.
    """
    return Choice(np.sort(ranking(score, generator)[:number]), score)


def keep_highest(score: np.ndarray, number: int, generator: np.random.Generator) -> Choice:
    """Keep the `number` images of highest score, ties in random order."""
    return Choice(np.sort(ranking(score, generator)[len(score) - number:]), score)


def ranking(score: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Ids by ascending score, ties in random order, int64 (n,)."""
    return np.lexsort((generator.permutation(len(score)), score))


def uniform(labels: np.ndarray, number: int, generator: np.random.Generator) -> Choice:
    """Keep `number` images drawn uniformly: the middle of a random order."""
    return Choice(np.sort(middle(generator.permutation(len(labels)), number)))
