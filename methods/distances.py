"""Methods that go by the distance of an image's feature to a center.

Features: finite, float32 (n, d), possibly a memory map.
"""
import numpy as np

from methods import pieces
from methods.choice import Choice, keep_highest, keep_lowest, middle

CENTERS = {"median": np.median, "mean": np.mean}
KMEANS_ROUNDS = 100


def moderate(labels: np.ndarray, number: int, generator: np.random.Generator, *, features: np.ndarray,
             center: str = "median") -> Choice:
    """Keep the images whose distance to their class center lies nearest the median of all distances.

    Xia et al., Moderate Coreset, ICLR 2023. Score: norm(h - center of the image's class). One order for all
    classes, of which the middle is kept; ties by id; nothing is random.

    Args:
        center: "median", coordinate by coordinate, as in the authors' release; "mean", the paper's Eq. 1.
    """
    distance = distances_to_centers(features, labels, center)
    return Choice(np.sort(middle(np.argsort(distance, kind="stable"), number)), distance)


def herding(labels: np.ndarray, number: int, generator: np.random.Generator, *, features: np.ndarray,
            center: str = "median") -> Choice:
    """Keep the images nearest to their class center.

    As Moderate Coreset's paper uses the name (Section 3 and its tables): moderate's score, and of one order
    for all classes the lowest are kept. Welling's herding (ICML 2009), which gave it the name, is another
    thing: it picks, one at a time, the image that takes the mean of the picked ones nearest to the center.

    Args:
        center: as for moderate.
    """
    return keep_lowest(distances_to_centers(features, labels, center), number, generator)


def selfsup(labels: np.ndarray, number: int, generator: np.random.Generator, *,
            features: np.ndarray) -> Choice:
    """Keep the images farthest from the nearest centroid of a k-means, k = number of classes.

    Sorscher et al., Beyond neural scaling laws, NeurIPS 2022: far images are the hard ones. Labels serve only
    to count the classes. The published figures are for features of a self-supervised network.
    """
    classes = len(np.unique(labels))
    return keep_highest(distances_to_centroids(features, classes, generator), number, generator)


def distances_to_centers(features: np.ndarray, labels: np.ndarray, center: str = "median") -> np.ndarray:
    """Euclidean distance of each image's feature to its own class's center.

    Args:
        features: float (n, d).
        labels: (n,), any numbers; gaps and classes of one image are fine.
        center: "median", coordinate by coordinate, or "mean".

    Returns:
        float64 (n,). Copies some columns of one class at a time, and of a large file classes that fit into
        RESIDENT_BYTES.
    """
    distances = np.empty(len(labels))
    classes = pieces.members_of_classes(labels)
    for i, rows in pieces.of_classes(features, classes):
        squares = np.zeros(len(rows))
        for block in rows.columns():
            block = np.ascontiguousarray(block.T)
            centers = CENTERS[center](block, axis=1, keepdims=True).astype(features.dtype)
            difference = block - centers.astype(float)
            squares += np.einsum("dn,dn->n", difference, difference)
        distances[classes[i]] = np.sqrt(squares)
    return distances


def distances_to_centroids(features: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """Distance of each image's feature to the nearest of k centroids, float64 (n,).

    Lloyd's k-means from k random images, until no image changes its centroid or for KMEANS_ROUNDS. A centroid
    without images is put on the image farthest from its own.
    """
    n, d = features.shape
    centroids = features[np.sort(generator.choice(n, k, replace=False))].astype(float)
    nearest = np.full(n, -1)
    sums = np.zeros((k, d))
    for left in reversed(range(KMEANS_ROUNDS)):
        before = nearest.copy()
        narrow = centroids.astype(features.dtype)
        half_squares = np.einsum("kd,kd->k", centroids, centroids) / 2
        for rows in pieces.blocks(features, row_bytes=8 * k):
            block = features[rows]
            nearest[rows] = np.argmin(half_squares - block @ narrow.T, axis=1)
            # Only of images that changed: after a few rounds they are few.
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
            far = np.argsort(distances_to_own(features, centroids, nearest))[-np.sum(~filled):]
            centroids[~filled] = features[np.sort(far)]
        centroids[filled] = sums[filled] / sizes[filled, None]
    return distances_to_own(features, centroids, nearest)


def distances_to_own(features: np.ndarray, centroids: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Distance of each row of `features` to centroids[nearest], float64 (n,)."""
    return np.concatenate([np.linalg.norm(features[rows] - centroids[nearest[rows]], axis=1)
                           for rows in pieces.blocks(features)])
