"""Methods that go by what the network said of each image in the epochs of its training.

Dynamics: float16 (epochs, 3, n), possibly a memory map: of each image as it was presented in each epoch, the
probability p_y of its label, the margin (p_y less the highest other probability) and norm(p - y), p being the
softmax and y the one-hot label. All are finite; the first lies in 0..1, the second in -1..1, the third in
0..sqrt(2). They come from the one training run, in training mode, so they cost no pass of their own.
"""
from collections.abc import Iterator

import numpy as np

from methods.choice import Choice, coreset_size, keep_highest
from methods.pieces import blocks
from utils.errors import BadInput

PROBABILITY, MARGIN, ERROR = range(3)  # rows of an epoch
STRATA = 50
WINDOW = 10  # epochs
DUAL_EPOCHS, DUAL_C = 30, 4


def forgetting(labels: np.ndarray, size: int, generator: np.random.Generator, *,
               dynamics: np.ndarray) -> Choice:
    """Keep the images whose prediction went from correct to wrong in the most epochs.

    Toneva et al., An Empirical Study of Example Forgetting, ICLR 2019. Correct: a margin above 0. An image
    that was never learned counts as forgotten most, with as many events as there are epochs, as in that paper
    and its code: it is among the hardest. The code of CCS, DeepCore and DUAL counts events alone, which puts
    it at 0 among the easiest.
    """
    events = np.zeros(len(labels))
    learned, before = np.zeros((2, len(labels)), bool)
    for epochs in blocks(dynamics):
        for margin in dynamics[epochs, MARGIN]:
            correct = margin > 0
            events += before & ~correct
            learned |= correct
            before = correct
    return keep_highest(np.where(learned, events, len(dynamics)), size, generator)


def el2n(labels: np.ndarray, size: int, generator: np.random.Generator, *, dynamics: np.ndarray,
         el2n_epochs: int = 10) -> Choice:
    """Keep the images with the highest mean of norm(p - y) over the first epochs.

    EL2N, Paul et al., Deep Learning on a Data Diet, NeurIPS 2021. The paper takes the mean over ten runs at
    one early epoch; here it is over the first epochs of one run, as in CCS's code, which sums them: ten runs
    cost ten trainings, and several epochs of one even out its noise too.

    Args:
        el2n_epochs: how many epochs; all where the run has fewer.
    """
    [epochs] = at_most(len(dynamics), "el2n", el2n_epochs=el2n_epochs)
    return keep_highest(mean_over_epochs(dynamics[:epochs], ERROR), size, generator)


def ccs(labels: np.ndarray, size: int, generator: np.random.Generator, *, dynamics: np.ndarray,
        hard_cutoff: float = 0.2) -> Choice:
    """Drop the likely mislabelled images, then draw from all strata of the area under the margin.

    Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, ICLR 2023. Score (AUM): mean over
    all epochs of the margin of probabilities; CCS's code sums them, which ranks alike (Pleiss et al., NeurIPS
    2020, whose AUM it is, take logits). The hard_cutoff * n lowest are dropped. The others' range is cut into
    STRATA equal strata, the highest score lying in the last one. From the smallest stratum up each gives
    min(its size, images still to keep // strata left), drawn uniformly.

    Args:
        hard_cutoff: beta, 0 to 1. Published: CIFAR-10 0.3 at keep 10 %; ImageNet 0.3 and 0.2 at keep 10 and
            20 %.

    Raises:
        BadInput: the cut-off leaves fewer images than are to be kept.
    """
    score = mean_over_epochs(dynamics, MARGIN)
    n = len(score)
    # A rate's rounding may keep one more: a rate of 1 - hard_cutoff is to work for every n.
    most = max(n - round(hard_cutoff * n), coreset_size(n, 1 - hard_cutoff))
    left = keep_highest(score, most, generator).kept
    if len(left) < size:
        raise BadInput(f"--hard_cutoff {hard_cutoff:g}: leaves {len(left)} of {n} images, {size} are to be "
                       "kept; name a smaller one, or a smaller --rate")
    edges = np.linspace(score[left].min(), score[left].max(), STRATA + 1)
    stratum = np.digitize(score[left], edges[1:-1])
    sizes = np.bincount(stratum, minlength=STRATA)
    kept: list[int] = []
    for done, smallest in enumerate(np.argsort(sizes, kind="stable")):
        budget = min(sizes[smallest], (size - len(kept)) // (STRATA - done))
        kept.extend(generator.choice(left[stratum == smallest], budget, replace=False))
    return Choice(np.sort(kept), score)


def dyn_unc(labels: np.ndarray, size: int, generator: np.random.Generator, *,
            dynamics: np.ndarray) -> Choice:
    """Keep the images whose label's probability varied most.

    Dyn-Unc, He et al., Large-scale Dataset Pruning with Dynamic Uncertainty, CVPR 2024. Score: mean over all
    windows of WINDOW consecutive epochs (all epochs where there are fewer) of the standard deviation of p_y.
    Public code divides by WINDOW - 1 under the root, which ranks alike.
    """
    [length] = at_most(len(dynamics), "dyn-unc", window=WINDOW)
    score = np.zeros(len(labels))
    for _, deviation in over_windows(dynamics[:, PROBABILITY], length):
        score += deviation
    score /= len(dynamics) - length + 1
    return keep_highest(score, size, generator)


def dual(labels: np.ndarray, size: int, generator: np.random.Generator, *, dynamics: np.ndarray) -> Choice:
    """Sample images that are uncertain and hard, easier ones the fewer are kept.

    DUAL, Cho et al., Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction
    Uncertainty, ICML 2025. Score: mean over the windows of J = WINDOW epochs in the first T = DUAL_EPOCHS of
    std(p_y) (1 - mean p_y); shorter runs shorten both. Images are drawn without replacement with weights
    score x Beta density of the mean p_y over T, with parameters 16 - b and b, b = 15 (1 - mu) (1 - q^DUAL_C),
    q the fraction dropped and mu the mean p_y of the image with the highest score, as in the paper; the
    authors' code takes the mean of ten images, and of the whole run. Images of weight 0 (p_y never changed,
    or always 1) come last, in random order, and a line says how many of them are kept.
    """
    epochs, length = at_most(len(dynamics), "dual", T=DUAL_EPOCHS, J=WINDOW)
    probability = dynamics[:epochs, PROBABILITY]
    score = np.zeros(len(labels))
    for mean, deviation in over_windows(probability, length):
        score += deviation * (1 - mean)
    score /= epochs - length + 1
    mean = mean_over_epochs(dynamics[:epochs], PROBABILITY)
    b = 15 * (1 - mean[score.argmax()]) * (1 - (1 - size / len(score)) ** DUAL_C)
    weight = np.full(len(score), -np.inf)  # logarithms: the density spans hundreds of powers of ten
    drawn = score > 0
    weight[drawn] = np.log(score[drawn]) + (15 - b) * np.log(mean[drawn]) + (b - 1) * np.log1p(-mean[drawn])
    if (missing := size - drawn.sum()) > 0:
        print(f"dual: of the {size} images kept {missing} have weight 0 and are drawn uniformly")
    # The highest of logarithms with Gumbel noise are a draw by the weights, one after the other.
    noisy = weight + generator.gumbel(size=len(weight))
    return Choice(keep_highest(noisy, size, generator).kept, score)


def mean_over_epochs(dynamics: np.ndarray, row: int) -> np.ndarray:
    """Mean over the epochs of row PROBABILITY, MARGIN or ERROR, float64 (n,)."""
    # In float64 sums of float16 numbers are exact, whatever their order.
    total = np.zeros(dynamics.shape[2])
    for epochs in blocks(dynamics):
        total += dynamics[epochs, row].sum(axis=0, dtype=float)
    return total / len(dynamics)


def over_windows(probability: np.ndarray, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation over each `length` consecutive rows, float64 (n,)."""
    # In float64 sums of float16 numbers are exact: a sum that moves on stays so, a constant has deviation 0.
    total = probability[:length - 1].sum(axis=0, dtype=float)
    for first in range(len(probability) - length + 1):
        window = probability[first:first + length]
        total += window[-1]
        mean = total / length
        yield mean, np.sqrt(sum((row - mean) ** 2 for row in window) / length)
        total -= window[0]


def at_most(epochs: int, method: str, **asked: int) -> list[int]:
    """The numbers of epochs that a method asks for, or as many as the run has, which a line says."""
    shorter = [f"{name} {number} becomes {epochs}" for name, number in asked.items() if number > epochs]
    if shorter:
        print(f"{method}: the run has {epochs} epoch{'s' if epochs > 1 else ''}, {', '.join(shorter)}")
    return [min(number, epochs) for number in asked.values()]
