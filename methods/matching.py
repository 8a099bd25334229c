"""Methods that match a whole coreset to the data set, not image by image."""
from collections.abc import Callable

import numpy as np

from methods import pieces
from methods.choice import Choice, keep_highest

GRAM_BYTES = 256 * 2 ** 20  # of the inner products of a class's images
WEISZFELD_STEPS = 100
WEISZFELD_TOLERANCE = 1e-12  # fraction by which a step shortens the sum of distances at the end
COINCIDING = 1e-6  # distance, in lengths of the longest feature


def gm(labels: np.ndarray, number: int, generator: np.random.Generator, *, features: np.ndarray,
       gm_scope: str = "class", gm_length: str = "unit") -> Choice:
    """Keep images whose mean is nearest to the geometric median.

    GM Matching, Acharya et al., ICML 2025, Algorithm 1: with m the geometric median, start at theta = m and
    repeat: pick the image with the highest <theta, h> of those left, then add m - h to theta. There is no
    score an image; equal images are picked by id.

    Args:
        features: h, finite, float32 (n, d), possibly a memory map.
        gm_scope: "class": each class on its own, in proportion to its size; what the proportion leaves over
            goes by largest remainders, equal ones at random. "global": all at once, which reads the features
            once a pick. The paper does not say which.
        gm_length: "as-is", or "unit": features are scaled to length 1 first. The paper does not scale them.
    """
    unit = gm_length == "unit"
    if gm_scope == "global":
        return Choice(np.sort(match(features, number, unit)))
    classes = pieces.members_of_classes(labels)
    quotas, remainders = np.divmod(number * np.array([len(members) for members in classes]), len(labels))
    quotas[keep_highest(remainders, number - quotas.sum(), generator).kept] += 1
    taken = [(members, quota) for members, quota in zip(classes, quotas) if quota]
    picks = [taken[i][0][match(rows, taken[i][1], unit)]
             for i, rows in pieces.of_classes(features, [members for members, _ in taken])]
    return Choice(np.sort(np.concatenate(picks)))


def match(points: np.ndarray | pieces.Rows, number: int, unit: bool) -> np.ndarray:
    """Rows of `points`, (n, d), that GM Matching picks, in the order of picking, int64 (number,).

    Everything is computed from inner products of points, the median being a weighted mean of them: of few
    points these are kept, of many computed again when needed.
    """
    n = len(points)
    few = n * n * 8 <= GRAM_BYTES
    if few:
        points = points[:]
    squares = np.concatenate([np.einsum("nd,nd->n", block, block, dtype=float)
                              for block in (points[rows] for rows in pieces.blocks(points))])
    scale = 1 / np.sqrt(np.where(squares > 0, squares, 1)) if unit else np.ones(n)
    if few:
        scaled = points * scale[:, None]
        gram = scaled @ scaled.T

        def products(weights: np.ndarray) -> np.ndarray:
            return gram @ weights

        def products_with(point: int) -> np.ndarray:
            return gram[point]
    else:
        def products(weights: np.ndarray) -> np.ndarray:
            weights = weights * scale
            mean = sum(weights[rows] @ points[rows] for rows in pieces.blocks(points))
            return scale * unscaled_products(mean)

        def products_with(point: int) -> np.ndarray:
            return unscaled_products(points[point]) * scale * scale[point]

        def unscaled_products(vector: np.ndarray) -> np.ndarray:
            return np.concatenate([points[rows] @ vector for rows in pieces.blocks(points)])

    with_median = products(geometric_median(products, squares * scale ** 2))
    with_theta = with_median.copy()
    picked = np.empty(number, int)
    for i in range(number):
        picked[i] = pick = with_theta.argmax()
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
