"""Rules: which images are kept of the candidates, and here the table of the rules' names."""
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from . import feature_rules
from .blocks import blocks
from .dynamics import PROBABILITY, mean_over_epochs

STRATA = 50
HIGHEST = 10  # images whose mean gives DUAL's mu
DIFFICULTIES = np.arange(21) / 20  # of the windows that `best` compares
RIDGE = 1.0
WINDOWS = {"easiest": 0.0, "middle": 0.5, "hardest": 1.0}  # the difficulties that have a name


@dataclass(frozen=True)
class Setting:
    """An option of a score or a rule.

    Args:
        default: its value, for a score the default of the function's keyword argument too.
        help: what it does.
        choices: its values, if it is a word; else it is a number from 0 on.
    """
    default: Any
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidates:
    """The images that a rule chooses from: all of the data set, or those of a class.

    Args:
        positions: int64, ascending.
        order: the same positions by ascending score; as `positions` where there is no score.
        score: float64 (n,), of all images of the data set; zeros where there is none.
        hard: the end of the score at which the hard images are, "low" or "high".
        inputs: the arrays that the rule needs, of all images, by name.
        settings: the rule's, by name.
        generator: for everything random.
    """
    positions: np.ndarray
    order: np.ndarray
    score: np.ndarray
    hard: str
    inputs: dict[str, np.ndarray]
    settings: dict[str, Any]
    generator: np.random.Generator


@dataclass(frozen=True)
class Rule:
    """What is kept of the candidates.

    Args:
        select: (candidates, size) -> positions of the `size` images kept, in any order; with `compares`,
            (select_all, labels, inputs, hard) -> the same, where `select_all` maps a function of the first
            kind to the positions that it keeps of all candidates.
        keeps: what it keeps, in words that continue "keeps ...".
        needs: arrays beside the score, of "features", "logits" and "dynamics".
        settings: its options, by name.
        any_score: whether --keep may name it, for every method with a score.
        draws: whether it draws from the generator.
        compares: whether it compares other rules.
    """
    select: Callable[..., np.ndarray]
    keeps: str = ""
    needs: tuple[str, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict)
    any_score: bool = False
    draws: bool = False
    compares: bool = False


def ranking(score: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Positions by ascending score, ties in random order, int64 (n,).

    Many scores are counts: ties by position would drop whole classes of a data set that is sorted by class.
    """
    return np.lexsort((generator.permutation(len(score)), score))


def window(candidates: Candidates, size: int, difficulty: float) -> np.ndarray:
    """Keep the images whose ranks lie nearest a difficulty: 0 is the easiest image, 1 the hardest.

    The window has `size` ranks of the ascending score and its center at the quantile q, the difficulty or,
    where hard images have low scores, 1 less the difficulty; it is moved inside where it would stick out. Of
    n, the first rank is round(n (q - size / n / 2)), for the middle that of the release. round((n - size) /
    2) is not: where n - size is odd, it is now and then one off, as the release rounds a floating-point
    number just beside the half.
    """
    n = len(candidates.order)
    quantile = difficulty if candidates.hard == "high" else round(1 - difficulty, 6)
    first = min(max(round(n * (quantile - size / n / 2)), 0), n - size)
    return candidates.order[first:first + size]


def uniform(candidates: Candidates, size: int) -> np.ndarray:
    """Keep `size` images drawn uniformly: the middle of a random order."""
    drawn = candidates.generator.permutation(candidates.positions)
    return window(replace(candidates, order=drawn), size, difficulty=0.5)


def ends(candidates: Candidates, size: int) -> np.ndarray:
    """Keep half of the number from each end; an odd one comes from the low scores."""
    order = candidates.order
    return np.concatenate([order[:size - size // 2], order[len(order) - size // 2:]])


def strata(candidates: Candidates, size: int) -> np.ndarray:
    """Draw from all strata of the score.

    CCS, Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, ICLR 2023. The range of the
    scores is cut into STRATA equal strata, the highest score lying in the last one. From the smallest stratum
    up each gives min(its size, images still to keep // strata left), drawn uniformly.
    """
    score = candidates.score[candidates.positions]
    stratum = np.digitize(score, np.linspace(score.min(), score.max(), STRATA + 1)[1:-1])
    sizes = np.bincount(stratum, minlength=STRATA)
    kept: list[int] = []
    for done, smallest in enumerate(np.argsort(sizes, kind="stable")):
        budget = min(sizes[smallest], (size - len(kept)) // (STRATA - done))
        members = candidates.positions[stratum == smallest]
        kept.extend(candidates.generator.choice(members, budget, replace=False))
    return np.array(kept)


def beta(candidates: Candidates, size: int) -> np.ndarray:
    """Draw by the score, easier images the fewer are kept.

    DUAL's rule (see dynamics.py). Images are drawn without replacement with weights score x Beta density of
    the mean p_y over the epochs that the score has, with parameters 16 - b and b, b = 15 (1 - mu) (1 - q^c),
    c = `dual_power`, q the fraction dropped and mu the mean p_y, averaged over the ten images with the
    highest scores, as in the authors' code (data_subset.py 165-178); the paper takes the image with the
    highest score. Images of weight 0 (p_y never changed, or always 1) come last, in random order, and a
    warning says how many of them are kept.
    """
    mean = mean_over_epochs(candidates.inputs["dynamics"], PROBABILITY)[candidates.positions]
    score = candidates.score[candidates.positions]
    mu = mean[np.argsort(score, kind="stable")[-HIGHEST:]].mean()
    b = 15 * (1 - mu) * (1 - (1 - size / len(score)) ** candidates.settings["dual_power"])
    weight = np.full(len(score), -np.inf)  # logarithms: the density spans hundreds of powers of ten
    drawn = (score > 0) & (mean > 0) & (mean < 1)  # the mean of several runs' scores may be above 0 elsewhere
    weight[drawn] = np.log(score[drawn]) + (15 - b) * np.log(mean[drawn]) + (b - 1) * np.log1p(-mean[drawn])
    if (missing := size - drawn.sum()) > 0:
        warnings.warn(f"dual: of the {size} images kept {missing} have weight 0 and are drawn uniformly",
                      stacklevel=1)
    # The highest of logarithms with Gumbel noise are a draw by the weights, one after the other.
    noisy = weight + candidates.generator.gumbel(size=len(weight))
    return candidates.positions[ranking(noisy, candidates.generator)[len(noisy) - size:]]


def best(select_all: Callable[..., np.ndarray], labels: np.ndarray, inputs: dict[str, np.ndarray], hard: str
         ) -> np.ndarray:
    """Keep the window whose images alone teach a linear classifier to label the whole training set best.

    BWS, Choi, Ki, Chung, Best Window Selection, ICML 2024: windows of a score at several difficulties; for
    each, a ridge regression of the one-hot labels on the features and a constant, fitted to the window alone.
    No code of its authors was found: the steps of 5 % and the ridge parameter, RIDGE, are this project's. Of
    windows that are equally good it is the one with the lowest scores.
    """
    features, positions = inputs["features"], np.unique(labels, return_inverse=True)[1]
    squares = [np.einsum("nd,nd->", features[rows], features[rows], dtype=float) for rows in blocks(features)]
    scale = np.sqrt(sum(squares) / features.size) or 1.0
    windows: dict[bytes, tuple[float, float, np.ndarray]] = {}
    for difficulty in DIFFICULTIES if hard == "high" else DIFFICULTIES[::-1]:
        kept = select_all(partial(window, difficulty=difficulty))
        if kept.tobytes() not in windows:  # windows that would stick out at one end are the same one
            windows[kept.tobytes()] = ridge_accuracy(features, scale, positions, kept), difficulty, kept
    accuracy, difficulty, kept = max(windows.values(), key=itemgetter(0))
    warnings.warn(f"best: the window at {difficulty:g} of the difficulty labels {100 * accuracy:.1f} % of "
                  "all images", stacklevel=1)
    return kept


def ridge_accuracy(features: np.ndarray, scale: float, labels: np.ndarray, kept: np.ndarray) -> float:
    """Fraction of all images that a ridge regression fitted to `kept` labels right.

    Args:
        scale: root mean square of the features, by which they are divided, so that RIDGE has one meaning.
        labels: from 0, without gaps.
    """
    d, classes = features.shape[1] + 1, labels.max() + 1

    def with_constant(positions: np.ndarray | slice) -> np.ndarray:
        return np.pad(features[positions].astype(float) / scale, ((0, 0), (0, 1)), constant_values=1)

    covariance, products = RIDGE * np.eye(d), np.zeros((d, classes))
    for rows in blocks(features[:len(kept)], row_bytes=16 * d):
        x = with_constant(kept[rows])
        covariance += x.T @ x
        products += x.T @ np.eye(classes)[labels[kept[rows]]]
    weights = np.linalg.solve(covariance, products)
    return sum(np.count_nonzero((with_constant(rows) @ weights).argmax(axis=1) == labels[rows])
               for rows in blocks(features, row_bytes=16 * d)) / len(labels)


DUAL = {"dual_power": Setting(4.0, "how fast DUAL turns to easy images, c; its authors take 11 for ImageNet")}
GM_LENGTH = {"gm_length": Setting(
    "unit", "features and median scaled to length 1, as in the authors' code, or as they are, as in the "
    "paper's Algorithm 1", ("as-is", "unit"))}


def window_rule(difficulty: float) -> Rule:
    """The window at a difficulty from 0 to 1."""
    return Rule(partial(window, difficulty=difficulty), any_score=True,
                keeps=f"the images around {difficulty:g} of the difficulty (0 easiest, 1 hardest)")


RULES = {
    **{name: window_rule(difficulty) for name, difficulty in WINDOWS.items()},
    "ends": Rule(ends, "half from the easiest and half from the hardest images", any_score=True),
    "strata": Rule(strata, f"images drawn from {STRATA} strata of the score", any_score=True, draws=True),
    "best": Rule(best, "the window of the score whose images label the others best", ("features",),
                 any_score=True, compares=True),
    "beta": Rule(beta, "images drawn by uncertainty, easier ones the fewer are kept", ("dynamics",), DUAL,
                 draws=True),
    "uniform": Rule(uniform, "images drawn uniformly", draws=True),
    "gm_matching": Rule(feature_rules.gm_matching, "images whose mean is near the geometric median",
                        ("features",), GM_LENGTH),
    "k_center_greedy": Rule(feature_rules.k_center_greedy, "images far from one another", ("features",),
                            draws=True),
    "message_passing": Rule(feature_rules.message_passing, "hard images that are far from one another",
                            ("features",)),
}


def find_rule(keep: str) -> Rule:
    """A rule by its name, or the window at a difficulty that is given as a number."""
    return RULES[keep] if keep in RULES else window_rule(float(keep))
