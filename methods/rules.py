"""Rules: which images of a pool are kept, and here the table of their names."""
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import itemgetter

import numpy as np

from methods import sets
from methods.choice import Pool, Rule, Setting, ranking
from methods.dynamics import PROBABILITY, mean_over_epochs
from methods.pieces import blocks

STRATA = 50
HIGHEST = 10  # images whose mean gives DUAL's mu
QUANTILES = np.arange(21) / 20  # of the windows that `best` compares
RIDGE = 1.0
WINDOWS = {"middle": 0.5, "lowest": 0.0, "highest": 1.0}  # the quantiles that have a name


def window(pool: Pool, size: int, quantile: float) -> np.ndarray:
    """Keep the images whose ranks lie nearest a quantile of the ranks.

    The window has `size` ranks and its center at the quantile; it is moved inside where it would stick out.
    So 0.5 is the middle, 0 the lowest and 1 the highest. Of n, the first rank is round(n (q - size / n / 2)),
    for the middle that of the release. round((n - size) / 2) is not: where n - size is odd, it is now and
    then one off, as the release rounds a floating-point number just beside the half.
    """
    n = len(pool.order)
    first = min(max(round(n * (quantile - size / n / 2)), 0), n - size)
    return pool.order[first:first + size]


def uniform(pool: Pool, size: int) -> np.ndarray:
    """Keep `size` images drawn uniformly: the middle of a random order."""
    return window(replace(pool, order=pool.generator.permutation(pool.positions)), size, quantile=0.5)


def ends(pool: Pool, size: int) -> np.ndarray:
    """Keep half of the number from each end; an odd one comes from the low end."""
    return np.concatenate([pool.order[:size - size // 2], pool.order[len(pool.order) - size // 2:]])


def strata(pool: Pool, size: int) -> np.ndarray:
    """Draw from all strata of the score.

    CCS, Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, ICLR 2023. The range of the
    scores is cut into STRATA equal strata, the highest score lying in the last one. From the smallest stratum
    up each gives min(its size, images still to keep // strata left), drawn uniformly.
    """
    score = pool.score[pool.positions]
    stratum = np.digitize(score, np.linspace(score.min(), score.max(), STRATA + 1)[1:-1])
    sizes = np.bincount(stratum, minlength=STRATA)
    kept: list[int] = []
    for done, smallest in enumerate(np.argsort(sizes, kind="stable")):
        budget = min(sizes[smallest], (size - len(kept)) // (STRATA - done))
        kept.extend(pool.generator.choice(pool.positions[stratum == smallest], budget, replace=False))
    return np.array(kept)


def beta(pool: Pool, size: int) -> np.ndarray:
    """Draw by the score, easier images the fewer are kept.

    DUAL's rule (see methods/dynamics.py). Images are drawn without replacement with weights score x Beta
    density of the mean p_y over the first `dual_epochs` epochs, with parameters 16 - b and b, b = 15 (1 - mu)
    (1 - q^c), c = `dual_power`, q the fraction dropped and mu the mean p_y, averaged over the ten images with
    the highest scores, as in the authors' code (data_subset.py 165-178); the paper takes the image with the
    highest score. Images of weight 0 (p_y never changed, or always 1) come last, in random order, and a line
    says how many of them are kept.
    """
    dynamics = pool.evidence["dynamics"][:pool.settings["dual_epochs"]]
    mean, score = mean_over_epochs(dynamics, PROBABILITY)[pool.positions], pool.score[pool.positions]
    mu = mean[np.argsort(score, kind="stable")[-HIGHEST:]].mean()
    b = 15 * (1 - mu) * (1 - (1 - size / len(score)) ** pool.settings["dual_power"])
    weight = np.full(len(score), -np.inf)  # logarithms: the density spans hundreds of powers of ten
    drawn = (score > 0) & (mean > 0) & (mean < 1)  # the mean of several runs' scores may be above 0 elsewhere
    weight[drawn] = np.log(score[drawn]) + (15 - b) * np.log(mean[drawn]) + (b - 1) * np.log1p(-mean[drawn])
    if (missing := size - drawn.sum()) > 0:
        print(f"dual: of the {size} images kept {missing} have weight 0 and are drawn uniformly")
    # The highest of logarithms with Gumbel noise are a draw by the weights, one after the other.
    noisy = weight + pool.generator.gumbel(size=len(weight))
    return pool.positions[ranking(noisy, pool.generator)[len(noisy) - size:]]


def best(select: Callable[..., np.ndarray], labels: np.ndarray, evidence: dict[str, np.ndarray]
         ) -> np.ndarray:
    """Keep the window whose images alone teach a linear classifier to label the whole training set best.

    BWS, Choi, Ki, Chung, Best Window Selection, ICML 2024: windows of a score at several quantiles; for each,
    a ridge regression of the one-hot labels on the features and a constant, fitted to the window alone. No
    code of its authors was found: the steps of 5 % and the ridge parameter, RIDGE, are this project's.
    """
    features, positions = evidence["features"], np.unique(labels, return_inverse=True)[1]
    squares = [np.einsum("nd,nd->", features[rows], features[rows], dtype=float) for rows in blocks(features)]
    scale = np.sqrt(sum(squares) / features.size) or 1.0
    found: dict[bytes, tuple[float, float, np.ndarray]] = {}
    for quantile in QUANTILES:
        kept = select(partial(window, quantile=quantile))
        if kept.tobytes() not in found:  # windows that would stick out at one end are the same one
            found[kept.tobytes()] = ridge_accuracy(features, scale, positions, kept), quantile, kept
    accuracy, quantile, kept = max(found.values(), key=itemgetter(0))
    print(f"best: the window at quantile {quantile:g} labels {100 * accuracy:.1f} % of all images")
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


DUAL = {"dual_epochs": Setting(30, "first epochs that DUAL goes by; its authors take 60 for ImageNet", low=1),
        "dual_power": Setting(4.0, "how fast DUAL turns to easy images, c; its authors take 11 for ImageNet")}
RULES = {
    **{name: Rule(partial(window, quantile=quantile), any_score=True) for name, quantile in WINDOWS.items()},
    "ends": Rule(ends, any_score=True),
    "strata": Rule(strata, any_score=True, draws=True),
    "best": Rule(best, ("features",), any_score=True, compares=True),
    "beta": Rule(beta, ("dynamics",), DUAL, draws=True),
    "uniform": Rule(uniform, draws=True),
    "matching": Rule(sets.matching, ("features",), {"gm_length": Setting(
        "unit", "features and median scaled to length 1, as the authors' code has them, or as they are, as "
        "in the paper's Algorithm 1", ("as-is", "unit"))}),
    "farthest": Rule(sets.farthest, ("features",), draws=True),
    "graph": Rule(sets.graph, ("features",)),
}


def find_rule(keep: str) -> Rule:
    """A rule by its name, or the window at a quantile that is given as a number."""
    return RULES[keep] if keep in RULES else Rule(partial(window, quantile=float(keep)))
