"""Methods that go by the distance of an image's feature to a center.

Features: finite, float32 (n, d), possibly a memory map.
"""
from collections.abc import Callable

import numpy as np

from methods.choice import Choice, keep_highest, keep_lowest, middle
from methods.pieces import BLOCK_BYTES, blocks, members_of_classes
from utils.errors import BadInput

CENTERS: dict[str, Callable[..., np.ndarray]] = {"median": np.median, "mean": np.mean}
KMEANS_ROUNDS = 100


def moderate(labels: np.ndarray, size: int, generator: np.random.Generator, *, features: np.ndarray,
             center: str = "median") -> Choice:
    """Keep the images whose distance to their class center lies nearest the median of all distances.

    Xia et al., Moderate Coreset, ICLR 2023. Score: norm(h - center of the image's class). One order for all
    classes, of which the middle is kept; ties by id; nothing is random.

    Args:
        center: "median", coordinate by coordinate, as in the authors' release; "mean", the paper's Eq. 1.
    """
    distance = distances_to_centers(features, labels, center)
    return Choice(np.sort(middle(np.argsort(distance, kind="stable"), size)), distance)


def herding(labels: np.ndarray, size: int, generator: np.random.Generator, *, features: np.ndarray,
            center: str = "median") -> Choice:
    """Keep the images nearest to their class center.

    As Moderate Coreset's paper uses the name (Section 3 and its tables): moderate's score, and of one order
    for all classes the lowest are kept. Welling's herding (ICML 2009), which gave it the name, is another
    thing: it picks, one at a time, the image that takes the mean of the picked ones nearest to the center.

    Args:
        center: as for moderate.
    """
    return keep_lowest(distances_to_centers(features, labels, center), size, generator)


def selfsup(labels: np.ndarray, size: int, generator: np.random.Generator, *,
            features: np.ndarray) -> Choice:
    """Keep the images farthest from the nearest centroid of a k-means, k = number of classes.

    Sorscher et al., Beyond neural scaling laws, NeurIPS 2022: far images are the hard ones. Labels serve only
    to count the classes. The published figures are for features of a self-supervised network.
    """
    classes = len(np.unique(labels))
    return keep_highest(distances_to_centroids(features, classes, generator), size, generator)


def distances_to_centers(features: np.ndarray, labels: np.ndarray, center: str = "median") -> np.ndarray:
    """Euclidean distance of each image's feature to its own class's center.

    Args:
        features: float (n, d).
        labels: (n,), any numbers; gaps and classes of one image are fine.
        center: "median", coordinate by coordinate, or "mean".

    Returns:
        float64 (n,). One class at a time is in memory.
    """
    distances = np.empty(len(labels))
    for members in members_of_classes(labels):
        rows = np.asarray(features[members])
        squares = np.zeros(len(rows))
        width = max(1, BLOCK_BYTES // (rows.itemsize * len(rows)))
        for first in range(0, rows.shape[1], width):
            columns = np.ascontiguousarray(rows[:, first:first + width].T)
            centers = CENTERS[center](columns, axis=1, keepdims=True).astype(rows.dtype)
            difference = columns - centers.astype(float)
            squares += np.einsum("dn,dn->n", difference, difference)
        distances[members] = np.sqrt(squares)
    return distances


def distances_to_centroids(features: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """Distance of each image's feature to the nearest of k centroids, float64 (n,).

    Lloyd's k-means from k random images, until no image changes its centroid or for KMEANS_ROUNDS. A centroid
    without images is put on the image farthest from its own.

    Raises:
        BadInput: features are so large that their products are beyond float32's range.
    """
    n, d = features.shape
    centroids = features[np.sort(generator.choice(n, k, replace=False))].astype(float)
    nearest = np.full(n, -1)
    sums = np.zeros((k, d))
    for left in reversed(range(KMEANS_ROUNDS)):
        before = nearest.copy()
        narrow = centroids.astype(features.dtype)
        half_squares = np.einsum("kd,kd->k", centroids, centroids) / 2
        for rows in blocks(features, row_bytes=8 * k):
            block = features[rows]
            with np.errstate(over="ignore"):
                half_distances = half_squares - block @ narrow.T
            if not np.isfinite(half_distances).all():
                raise BadInput("features: too large for float32 products; divide them by a constant")
            nearest[rows] = np.argmin(half_distances, axis=1)
            # Only images that changed: after a few rounds they are few.
            changed = np.flatnonzero(nearest[rows] != before[rows])
            if len(changed):
                ids = np.arange(k)[:, None]
                into, out_of = ids == nearest[rows][changed], ids == before[rows][changed]
                sums += np.subtract(into, out_of, dtype=features.dtype) @ block[changed]
        if not left or (nearest == before).all():
            break
        sizes = np.bincount(nearest, minlength=k)
        filled = sizes > 0
        if not filled.all():
            far = np.argsort(distances_to_own(features, centroids, nearest))[-np.count_nonzero(~filled):]
            centroids[~filled] = features[np.sort(far)]
        centroids[filled] = sums[filled] / sizes[filled, None]
    return distances_to_own(features, centroids, nearest)


def distances_to_own(features: np.ndarray, centroids: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Distance of each row of `features` to centroids[nearest], float64 (n,)."""
    return np.concatenate([np.linalg.norm(features[rows] - centroids[nearest[rows]], axis=1)
                           for rows in blocks(features)])
