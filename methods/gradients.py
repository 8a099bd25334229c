"""Methods that go by the length of the loss's gradient."""
import numpy as np

from methods.choice import Choice, keep_highest
from methods.pieces import blocks


def grand(labels: np.ndarray, size: int, generator: np.random.Generator, *, features: np.ndarray,
          logits: np.ndarray) -> Choice:
    """Keep the images with the longest gradient of their own loss by the last layer's weights and bias.

    GraNd, Paul et al., Deep Learning on a Data Diet, NeurIPS 2021. Of a last layer W h + b under
    cross-entropy the gradient by W is (p - y) h' and by b p - y, so that the score is
    norm(p - y) sqrt(1 + norm(h)^2), with p = softmax(logits) and y one-hot: no backward pass. DeepCore takes
    the last layer too; the authors' code takes all parameters, a backward pass an image, and the mean over
    ten runs.

    Args:
        labels: (n,), positions in the logits' columns.
        features: h, finite, float32 (n, d), possibly a memory map.
        logits: finite, float32 (n, k), possibly a memory map.
    """
    score = np.empty(len(labels))
    for rows in blocks(features, logits, row_bytes=8 * logits.shape[1]):
        block = np.asarray(logits[rows], float)
        error = np.exp(block - block.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(error)), labels[rows]] -= 1
        squares = np.einsum("nd,nd->n", features[rows], features[rows], dtype=float)
        score[rows] = np.linalg.norm(error, axis=1) * np.sqrt(1 + squares)
    return keep_highest(score, size, generator)
