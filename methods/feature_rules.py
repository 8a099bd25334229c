"""Rules that need features: matching, greedy k-center, message passing on a graph."""
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .blocks import blocks

if TYPE_CHECKING:
    from .rules import Candidates

WEISZFELD_STEPS = 100
WEISZFELD_TOLERANCE = 1e-12  # fraction by which the last step shortens the sum of distances
COINCIDING = 1e-6  # distance, in lengths of the longest feature
NEIGHBORS, GAMMA, FLOOR = 5, 0.1, 1e-7  # of D2's graph


def gm_matching(candidates: "Candidates", size: int) -> np.ndarray:
    """Keep images whose mean is nearest to the geometric median.

    GM Matching, Acharya et al., ICML 2025, Algorithm 1: with m the geometric median, start at theta = m and
    repeat: pick the image with the highest <theta, h> of those left, then add m - h to theta. Equal images
    are picked by id. With gm_length "unit" the features and m, the geometric median of the features as they
    are, are then scaled to length 1, as in the authors' code (sampling/sample.py 60-95, sampling/algos.py
    231-265), which takes each class on its own; it starts at a random image and keeps as many of each class,
    which hardly matters. "as-is" is Algorithm 1 to the letter.

    All is computed from inner products of features, the median being a weighted mean of them. They are kept
    in a matrix unless there are more of them than numbers in the features.
    """
    points = candidates.inputs["features"][candidates.positions].astype(float)
    gram = points @ points.T if len(points) <= points.shape[1] else None

    def products(weights: np.ndarray) -> np.ndarray:
        return points @ (weights @ points) if gram is None else gram @ weights

    def products_with(point: int) -> np.ndarray:
        return points @ points[point] if gram is None else gram[point]

    squares = np.einsum("nd,nd->n", points, points)
    weights = geometric_median(products, squares)
    with_median, scale = products(weights), np.ones(len(points))
    if candidates.settings["gm_length"] == "unit":
        scale = np.divide(1, np.sqrt(squares), out=scale, where=squares > 0)
        with_median *= scale / (np.sqrt(max(weights @ with_median, 0)) or 1)
    with_theta = with_median.copy()
    picked = np.empty(size, int)
    for i in range(size):
        picked[i] = pick = int(with_theta.argmax())
        with_theta += with_median - scale * scale[pick] * products_with(pick)
        with_theta[pick] = -np.inf
    return candidates.positions[picked]


def k_center_greedy(candidates: "Candidates", size: int) -> np.ndarray:
    """Keep images one by one, each the farthest from those that are kept: greedy k-center.

    As DeepCore's kCenterGreedy (methods/kcentergreedy.py, from Sener, Savarese, ICLR 2018): a random image
    first, Euclidean distances of features.
    """
    points = np.asarray(candidates.inputs["features"][candidates.positions], float)
    squares = np.einsum("nd,nd->n", points, points)
    nearest = np.full(len(points), np.inf)
    picked = np.empty(size, int)
    pick = int(candidates.generator.integers(len(points)))
    for i in range(size):
        picked[i] = pick
        nearest = np.minimum(nearest, squares + squares[pick] - 2.0 * (points @ points[pick]))
        nearest[pick] = -np.inf
        pick = int(nearest.argmax())
    return candidates.positions[picked]


def message_passing(candidates: "Candidates", size: int) -> np.ndarray:
    """Keep images of high score that are far from one another: message passing on a graph of neighbors.

    D2 pruning, Maharana, Yadav, Bansal, ICLR 2024. Each image has edges to its NEIGHBORS nearest in feature
    space and to those that it is a nearest one of, d apart (core/data/sampling.py of the authors' code,
    compute_graph_density). Forward: s_i += sum over its neighbors j of exp(-d_ij) max(s_j, FLOOR), with s the
    score; the floor lets density decide among images without forgetting events.
    Then, until `size` images are kept: take the image with the highest s, and subtract exp(-GAMMA d_ij) s_i
    from each neighbor j. Before that, their code cuts off the images of lowest AUM, of all classes together
    (--mis-key of train.py, mode "class" of selection_mp.py).
    """
    points = np.asarray(candidates.inputs["features"][candidates.positions], float)
    score = candidates.score[candidates.positions]
    n, k = len(points), min(NEIGHBORS, len(points) - 1)
    neighbors, apart = nearest_neighbors(points, k)
    one, other = np.repeat(np.arange(n), k), neighbors.ravel()
    edges, first = np.unique(np.concatenate([one * n + other, other * n + one]), return_index=True)
    (source, target), distance = np.divmod(edges, n), np.tile(apart.ravel(), 2)[first]
    message = score + np.bincount(source, np.exp(-distance) * np.maximum(score, FLOOR)[target], minlength=n)
    begin = np.searchsorted(source, np.arange(n + 1))
    kept = np.empty(size, int)
    for i in range(size):
        kept[i] = pick = int(message.argmax())
        own = slice(begin[pick], begin[pick + 1])
        message[target[own]] -= np.exp(-GAMMA * distance[own]) * message[pick]
        message[pick] = -np.inf
    return candidates.positions[kept]


def nearest_neighbors(points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other points of each of n points, int (n, k), and their Euclidean distances, (n, k)."""
    squares = np.einsum("nd,nd->n", points, points)
    neighbors, distances = np.empty((len(points), k), int), np.empty((len(points), k))
    for rows in blocks(points, row_bytes=8 * len(points)):
        apart = squares[rows, None] + squares - 2 * points[rows] @ points.T
        apart[np.arange(len(apart)), np.arange(len(points))[rows]] = np.inf
        neighbors[rows] = np.argpartition(apart, max(k - 1, 0), axis=1)[:, :k]
        distances[rows] = np.sqrt(np.maximum(np.take_along_axis(apart, neighbors[rows], axis=1), 0))
    return neighbors, distances


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
