"""Scores from what the network said of each image in the epochs of its training.

Dynamics: float16 (epochs, 3, n), possibly a memory map: of each image as it was presented in each epoch, the
probability p_y of its label, the margin (p_y less the highest other probability) and norm(p - y), p being the
softmax and y the one-hot label. All are finite; the first lies in 0..1, the second in -1..1, the third in
0..sqrt(2). They come from the one training run, in training mode, so they cost no pass of their own.
"""
import warnings
from collections.abc import Callable

import numpy as np

PROBABILITY, MARGIN, ERROR = range(3)  # rows of an epoch
WINDOW = 10  # epochs


def forgetting(labels: np.ndarray, generator: np.random.Generator, *, dynamics: np.ndarray,
               never_learned: str = "zero") -> np.ndarray:
    """Number of epochs in which an image's prediction went from correct to wrong.

    Toneva et al., An Empirical Study of Example Forgetting, ICLR 2019. Correct: a margin above 0.

    Args:
        never_learned: what an image counts that was never correct. "zero": its 0 events, as in the code of
            CCS (generate_importance_score.py 99), DeepCore and DUAL; the published order under label noise
            agrees with that alone. "max": as many as there are epochs, as in the paper of origin.
    """
    events = np.zeros(len(labels))
    learned, before = np.zeros((2, len(labels)), bool)
    for margin in dynamics[:, MARGIN]:
        correct = margin > 0
        events += before & ~correct
        learned |= correct
        before = correct
    return np.where(learned, events, len(dynamics)) if never_learned == "max" else events


def el2n(labels: np.ndarray, generator: np.random.Generator, *, dynamics: np.ndarray) -> np.ndarray:
    """Mean of norm(p - y) over the first epochs, ten by default.

    EL2N, Paul et al., Deep Learning on a Data Diet, NeurIPS 2021. The paper takes the mean over ten runs at
    one early epoch; here it is over the first epochs of one run, as in CCS's code, which sums them: ten runs
    cost ten trainings, and several epochs of one even out its noise too.
    """
    return mean_over_epochs(dynamics, ERROR)


def aum(labels: np.ndarray, generator: np.random.Generator, *, dynamics: np.ndarray) -> np.ndarray:
    """Area under the margin: mean over all epochs of the margin of probabilities.

    As in the code of CCS (Zheng et al., ICLR 2023), which sums them, and so ranks alike; Pleiss et al.,
    Identifying Mislabeled Data using the Area Under the Margin Ranking, NeurIPS 2020, take logits.
    """
    return mean_over_epochs(dynamics, MARGIN)


def dyn_unc(labels: np.ndarray, generator: np.random.Generator, *, dynamics: np.ndarray) -> np.ndarray:
    """How much the probability of an image's label varied.

    Dyn-Unc, He et al., Large-scale Dataset Pruning with Dynamic Uncertainty, CVPR 2024: mean over all windows
    of WINDOW consecutive epochs (all epochs where there are fewer) of the standard deviation of p_y. Its own
    code leaves out the last window and takes probabilities of evaluation mode; public code divides by
    WINDOW - 1 under the root, which ranks alike.
    """
    return mean_over_windows(dynamics[:, PROBABILITY], lambda mean, deviation: deviation)


def dual(labels: np.ndarray, generator: np.random.Generator, *, dynamics: np.ndarray) -> np.ndarray:
    """Uncertain and hard: mean over windows of std(p_y) (1 - mean p_y).

    DUAL, Cho et al., Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction
    Uncertainty, ICML 2025: windows of J = WINDOW epochs in the first T, 30 by default (60 for ImageNet). Its
    rule is `beta` in rules.py.
    """
    return mean_over_windows(dynamics[:, PROBABILITY], lambda mean, deviation: deviation * (1 - mean))


def mean_over_epochs(dynamics: np.ndarray, row: int) -> np.ndarray:
    """Mean over the epochs of row PROBABILITY, MARGIN or ERROR, float64 (n,)."""
    return dynamics[:, row].mean(axis=0, dtype=float)


def mean_over_windows(probability: np.ndarray, score: Callable[[np.ndarray, np.ndarray], np.ndarray]
                      ) -> np.ndarray:
    """Mean over all windows of WINDOW rows of a score of a window's mean and deviation, float64 (n,).

    Where there are fewer rows, all of them are the one window, and a warning says so.
    """
    length = min(WINDOW, len(probability))
    if length < WINDOW:
        warnings.warn(f"dynamics: {length} epoch{'s' if length > 1 else ''} are used, windows of {WINDOW} "
                      f"become {length}", stacklevel=1)
    # In float64 sums of float16 numbers are exact: a sum that moves on stays so, a constant has deviation 0.
    total, scores = probability[:length - 1].sum(axis=0, dtype=float), np.zeros(probability.shape[1])
    windows = range(len(probability) - length + 1)
    for first in windows:
        window = probability[first:first + length]
        total += window[-1]
        mean = total / length
        scores += score(mean, np.sqrt(sum((row - mean) ** 2 for row in window) / length))
        total -= window[0]
    return scores / len(windows)
