"""Features and logits of a data set's training images, computed once by a checkpoint and kept."""
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from datasets import DataSet
from datasets.pipeline import evaluation_batches
from models.checkpoint import load_checkpoint, load_network
from utils import distributed
from utils.arrays import ResumableArrays, read_array
from utils.errors import BadInput, FolderUnavailable
from utils.files import locked, read_json_or_nothing, sha256, write_json

BATCH_SIZE = 64
KEPT = "features", "logits"


def features_and_logits(data: DataSet, arch: str, checkpoint: Path, save: Path, workers: int | None = None,
                        needs: Iterable[str] = KEPT) -> dict[str, np.ndarray]:
    """Features, float32 (n, d), and logits, float32 (n, k), of the training images by a checkpoint.

    They are memory-mapped from <checkpoint>.features.npy and .logits.npy beside the checkpoint, or from
    <save>/<dataset>.*.npy if the checkpoint's folder is not writable. Missing ones are computed first, so
    all methods, centers and rates share one pass over the images. An interrupted pass is resumed.

    Args:
        workers: threads that prepare batches; None: one per core.
        needs: those that are used; a checkpoint that was converted without its last layer has no logits.
    """
    names = KEPT if any(name.startswith("classifier.") for name in load_checkpoint(checkpoint)) else KEPT[:1]
    if "logits" in needs and "logits" not in names:
        raise BadInput(f"{checkpoint}: has no last layer; choose a method that needs only features, such as "
                       "moderate")
    key = {"dataset": data.name, "arch": arch, "checkpoint_sha256": sha256(checkpoint),
           "images_sha256": data.images_sha256, "image_size": data.image_size, "classes": len(data.classes)}
    beside_checkpoint, at_index = checkpoint.with_suffix(""), save / data.name
    for stem in (beside_checkpoint, at_index):
        if kept := read_kept(stem, key, len(data.train.labels), names):
            print(f"using the features in {kept_path(stem, 'features')}")
            return kept
    network = load_network(arch, checkpoint, len(data.classes), data.source.small_images, names != KEPT)
    try:
        with locked(checkpoint.parent):
            return extract(network, checkpoint, data, beside_checkpoint, key, names, workers)
    except FolderUnavailable:
        with locked(save):
            return extract(network, checkpoint, data, at_index, key, names, workers)


def kept_path(stem: Path, name: str) -> Path:
    """The file of features or logits; for "key" the JSON file that records what they were computed from."""
    return stem.with_name(f"{stem.name}.features.json" if name == "key" else f"{stem.name}.{name}.npy")


def read_kept(stem: Path, key: dict[str, Any], n: int, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Complete arrays with these names and this key; {} if there are none."""
    if read_json_or_nothing(kept_path(stem, "key")) != key:
        return {}
    try:
        arrays = {name: read_array(kept_path(stem, name), "") for name in names}
    except BadInput:
        return {}
    fits = all(array.ndim == 2 and len(array) == n and array.dtype == np.float32 for array in arrays.values())
    return arrays if fits else {}


def extract(network: ms.nn.Cell, checkpoint: Path, data: DataSet, stem: Path, key: dict[str, Any],
            names: tuple[str, ...], workers: int | None = None) -> dict[str, np.ndarray]:
    """Compute the arrays of these names, in evaluation mode and without random transforms.

    Several ranks compute one batch each. Once all are in the files, only the first rank continues.
    """
    @ms.jit
    def step(images: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        features = network.features(images)
        return features, network.classifier(features)

    def batches() -> Iterator[dict[str, np.ndarray]]:
        shard = distributed.rank(), distributed.size()
        for _, images, _ in evaluation_batches(data, data.train, BATCH_SIZE, data.source.feature_transform,
                                               workers, shard, arrays.rows):
            # Up to n, since the last batch is padded.
            features, logits = (distributed.all_gather(values.asnumpy())[:n - arrays.rows]
                                for values in step(ms.Tensor(images)))
            if not np.isfinite(features).all():
                arrays.remove()
                raise BadInput(f"{checkpoint}: computes features that are not finite; train it again")
            yield dict(zip(names, (features, logits), strict=False))

    n = len(data.train.labels)
    with ResumableArrays({name: kept_path(stem, name) for name in names}, n, key) as arrays:
        arrays.fill("features", batches())
        distributed.end_others()
        kept_path(stem, "key").unlink(missing_ok=True)
        arrays.finish()
        write_json(kept_path(stem, "key"), key)
    return read_kept(stem, key, n, names)
