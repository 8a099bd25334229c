"""Scores that are the distance of an image's feature to a center.

Features: finite, float32 (n, d), possibly a memory map.
"""
import numpy as np

from .blocks import blocks, members_of_classes

KMEANS_ROUNDS = 100
TINY = 1e-30  # a length of 0 becomes it


def distance_to_class_center(labels: np.ndarray, generator: np.random.Generator, *, features: np.ndarray,
                             center: str = "median") -> np.ndarray:
    """norm(h - center of the image's class), the score of Moderate Coreset, Xia et al., ICLR 2023.

    The paper keeps the images nearest the median of all distances; its herding keeps those nearest to the
    centers (Section 3 and its tables). Welling's herding (ICML 2009), which gave that the name, is another
    thing: it picks, one at a time, the image that takes the mean of the picked ones nearest to the center.
    One class at a time is in memory.

    Args:
        center: "median", coordinate by coordinate, as in the authors' release; "mean", the paper's Eq. 1.
    """
    distances = np.empty(len(labels))
    for members in members_of_classes(labels):
        coordinates = np.asarray(features[members]).T
        squares = np.zeros(len(members))
        for rows in blocks(coordinates):
            block = np.ascontiguousarray(coordinates[rows])
            centers = getattr(np, center)(block, axis=1, keepdims=True).astype(block.dtype)
            difference = block - centers.astype(float)
            squares += np.einsum("dn,dn->n", difference, difference)
        distances[members] = np.sqrt(squares)
    return distances


def distance_to_nearest_centroid(labels: np.ndarray, generator: np.random.Generator, *,
                                 features: np.ndarray) -> np.ndarray:
    """Distance to the nearest centroid of a k-means of features of length 1, k = number of classes.

    Sorscher et al., Beyond neural scaling laws, NeurIPS 2022, whose distance is the cosine's: far images are
    the hard ones. Labels serve only to count the classes. The published figures are for features of a
    self-supervised network, which --features takes. Lloyd's k-means from k random images, until no image
    changes its centroid or for KMEANS_ROUNDS. A centroid without images is put on the image farthest from its
    own.
    """
    k = len(np.unique(labels))
    scale = np.concatenate([1 / np.maximum(np.linalg.norm(features[rows].astype(float), axis=1), TINY)
                            for rows in blocks(features)]).astype(features.dtype)[:, None]

    def points(rows: slice | np.ndarray) -> np.ndarray:
        return features[rows] * scale[rows]

    def distances_to_own() -> np.ndarray:
        return np.concatenate([np.linalg.norm(points(rows) - centroids[nearest[rows]], axis=1)
                               for rows in blocks(features)])

    centroids = points(np.sort(generator.choice(len(features), k, replace=False))).astype(float)
    nearest = np.full(len(features), -1)
    sums = np.zeros_like(centroids)
    for left in reversed(range(KMEANS_ROUNDS)):
        before = nearest.copy()
        narrow = centroids.astype(features.dtype)
        half_squares = np.einsum("kd,kd->k", centroids, centroids) / 2
        for rows in blocks(features, row_bytes=8 * k):
            block = points(rows)
            nearest[rows] = np.argmin(half_squares - block @ narrow.T, axis=1)
            # Only images that changed: after a few rounds they are few.
            changed = np.flatnonzero(nearest[rows] != before[rows])
            ids = np.arange(k)[:, None]
            into, out_of = ids == nearest[rows][changed], ids == before[rows][changed]
            sums += np.subtract(into, out_of, dtype=features.dtype) @ block[changed]
        if not left or (nearest == before).all():
            break
        sizes = np.bincount(nearest, minlength=k)
        filled = sizes > 0
        if not filled.all():
            far = np.argsort(distances_to_own())[-np.count_nonzero(~filled):]
            centroids[~filled] = points(np.sort(far))
        centroids[filled] = sums[filled] / sizes[filled, None]
    return distances_to_own()
