"""Methods that choose a coreset as a whole: images have no score."""
from collections.abc import Callable

import numpy as np

from methods.choice import Choice, keep_highest, middle
from methods.pieces import members_of_classes

WEISZFELD_STEPS = 100
WEISZFELD_TOLERANCE = 1e-12  # fraction by which the last step shortens the sum of distances
COINCIDING = 1e-6  # distance, in lengths of the longest feature


def uniform(labels: np.ndarray, size: int, generator: np.random.Generator) -> Choice:
    """Keep `size` images drawn uniformly: the middle of a random order."""
    return Choice(np.sort(middle(generator.permutation(len(labels)), size)))


def gm(labels: np.ndarray, size: int, generator: np.random.Generator, *, features: np.ndarray,
       gm_length: str = "unit") -> Choice:
    """Keep images of each class whose mean is nearest to the class's geometric median.

    GM Matching, Acharya et al., ICML 2025, Algorithm 1: with m the geometric median, start at theta = m and
    repeat: pick the image with the highest <theta, h> of those left, then add m - h to theta. Equal images
    are picked by id. The paper does not say whether classes are taken apart. Here they are, in proportion to
    their sizes; what the proportion leaves over goes by largest remainders, equal ones at random.

    Args:
        features: h, finite, float32 (n, d), possibly a memory map.
        gm_length: "as-is", or "unit": features are scaled to length 1 first. The paper does not scale them.
    """
    classes = members_of_classes(labels)
    quotas, remainders = np.divmod(size * np.array([len(members) for members in classes]), len(labels))
    quotas[keep_highest(remainders, size - quotas.sum(), generator).kept] += 1
    picks = [members[match(features[members], quota, gm_length == "unit")]
             for members, quota in zip(classes, quotas, strict=True) if quota]
    return Choice(np.sort(np.concatenate(picks)))


def match(points: np.ndarray, size: int, unit: bool) -> np.ndarray:
    """Rows of `points`, (n, d), that GM Matching picks, in the order of picking, int64 (size,).

    All is computed from inner products of points, the median being a weighted mean of them. They are kept in
    a matrix unless there are more of them than numbers in `points`.
    """
    points = points.astype(float)
    if unit:
        lengths = np.linalg.norm(points, axis=1, keepdims=True)
        points /= np.where(lengths > 0, lengths, 1)
    gram = points @ points.T if len(points) <= points.shape[1] else None

    def products(weights: np.ndarray) -> np.ndarray:
        return points @ (weights @ points) if gram is None else gram @ weights

    def products_with(point: int) -> np.ndarray:
        return points @ points[point] if gram is None else gram[point]

    with_median = products(geometric_median(products, np.einsum("nd,nd->n", points, points)))
    with_theta = with_median.copy()
    picked = np.empty(size, int)
    for i in range(size):
        picked[i] = pick = int(with_theta.argmax())
        with_theta += with_median - products_with(pick)
        with_theta[pick] = -np.inf
    return picked


def geometric_median(products: Callable[[np.ndarray], np.ndarray], squares: np.ndarray) -> np.ndarray:
    """Weights (n,), of sum 1, with which the mean of n points has the least sum of distances to them.

    Weiszfeld's steps from the plain mean, in Vardi and Zhang's form (PNAS 2000), which does not stop at a
    point that is not the median.

    Args:
        products: maps weights to each point's inner product with the points' weighted sum.
        squares: each point's inner product with itself.
    """
    weights = np.full(len(squares), 1 / len(squares))
    last = np.inf
    for _ in range(WEISZFELD_STEPS):
        inner = products(weights)
        distance = np.sqrt(np.maximum(squares - 2 * inner + weights @ inner, 0))
        apart = distance > COINCIDING * np.sqrt(squares.max())
        if distance.sum() >= last * (1 - WEISZFELD_TOLERANCE) or not apart.any():
            break
        last = distance.sum()
        pull = np.divide(1, distance, out=np.zeros(len(squares)), where=apart)
        step = pull / pull.sum() - weights
        if not apart.all():
            strength = pull.sum() * np.sqrt(max(step @ products(step), 0))
            coinciding = len(squares) - apart.sum()
            if strength <= coinciding:
                break
            step *= 1 - coinciding / strength
        weights = weights + step
    return weights
