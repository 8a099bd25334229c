"""Scores from a trained network's logits: finite, float32 (n, k), possibly a memory map."""
from collections.abc import Iterator

import numpy as np

from .blocks import blocks


def grand(labels: np.ndarray, generator: np.random.Generator, *, features: np.ndarray, logits: np.ndarray
          ) -> np.ndarray:
    """Length of the gradient of an image's own loss by the last layer's weights and bias.

    GraNd, Paul et al., Deep Learning on a Data Diet, NeurIPS 2021. Of a last layer W h + b under
    cross-entropy the gradient by W is (p - y) h' and by b p - y, so that the score is
    norm(p - y) sqrt(1 + norm(h)^2), with p = softmax(logits) and y one-hot: no backward pass. DeepCore takes
    the last layer too; the authors' code takes all parameters, a backward pass per image, and the mean over
    ten runs.

    Args:
        labels: (n,), positions in the logits' columns.
        features: h, finite, float32 (n, d), possibly a memory map.
    """
    score = np.empty(len(labels))
    for rows, p in probabilities(logits):
        p[np.arange(len(p)), labels[rows]] -= 1
        squares = np.einsum("nd,nd->n", features[rows], features[rows], dtype=float)
        score[rows] = np.linalg.norm(p, axis=1) * np.sqrt(1 + squares)
    return score


def entropy(labels: np.ndarray, generator: np.random.Generator, *, logits: np.ndarray) -> np.ndarray:
    """Entropy of p = softmax(logits), -sum p log p: how undecided the network is, whatever the label."""
    return np.concatenate([-(p * np.log(np.maximum(p, np.finfo(float).tiny))).sum(axis=1)
                           for _, p in probabilities(logits)])


def least_confidence(labels: np.ndarray, generator: np.random.Generator, *, logits: np.ndarray) -> np.ndarray:
    """1 - max p, p = softmax(logits), whatever the label."""
    return np.concatenate([1 - p.max(axis=1) for _, p in probabilities(logits)])


def probabilities(logits: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows and their softmax, float64."""
    for rows in blocks(logits, row_bytes=8 * logits.shape[1]):
        block = np.asarray(logits[rows], float)
        p = np.exp(block - block.max(axis=1, keepdims=True))
        yield rows, p / p.sum(axis=1, keepdims=True)
