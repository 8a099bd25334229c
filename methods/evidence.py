"""What methods choose by, computed once and kept: features and logits of a checkpoint, training dynamics."""
import hashlib
from pathlib import Path

import mindspore as ms
import numpy as np

from datasets import DataSet
from datasets.pipeline import EvaluationBatches
from methods import pieces
from models.checkpoint import load_network, run_of
from utils import ranks
from utils.arrays import GrowingArrays, read_array, read_key
from utils.files import BadInput, FolderInUse, locked, sha256
from utils.progress import progress_bar
from utils.runs import identity, read_args

BATCH_SIZE = 64


def features_and_logits(data: DataSet, arch: str, checkpoint: Path, save: Path, workers: int | None = None
                        ) -> dict[str, np.ndarray]:
    """Features, float32 (n, d), and logits, float32 (n, k), of the training images by a checkpoint.

    Memory-mapped from <checkpoint>.features.npy and .logits.npy beside the checkpoint, or from
    <save>/<dataset>.*.npy where the checkpoint's folder cannot be written to. What is missing there is
    computed first, so every method, center and rate shares one pass over the images, and a pass that was
    stopped goes on where it was.

    Args:
        save: the index's folder, locked by the caller.
        workers: threads that make batches; None: one a core.

    Raises:
        BadInput: the checkpoint does not fit the network, its features are not finite, or a file cannot be
            written.
    """
    key = {"dataset": data.name, "arch": arch, "checkpoint_sha256": sha256(checkpoint),
           "images_sha256": data.images_sha256, "image_size": data.image_size,
           "classes": len(data.classes)}
    beside, at_index = checkpoint.with_suffix(""), save / data.name
    for stem in (beside, at_index):
        kept = read_kept(stem, key, len(data.train.labels))
        if kept:
            print(f"using the features in {kept_paths(stem)['features']}")
            return kept
    network = load_network(arch, checkpoint, len(data.classes), data.source.small_images)
    try:
        with locked(checkpoint.parent):
            return extract(network, data, beside, key, workers)
    except FolderInUse:
        return extract(network, data, at_index, key, workers)


def kept_paths(stem: Path) -> dict[str, Path]:
    """The files of features and logits."""
    return {name: stem.with_name(f"{stem.name}.{name}.npy") for name in ("features", "logits")}


def key_path(stem: Path) -> Path:
    """The file that says what they were computed from."""
    return stem.with_name(f"{stem.name}.features.json")


def read_kept(stem: Path, key: dict, n: int) -> dict[str, np.ndarray]:
    """Features and logits that are whole and have that key; {} where there are none."""
    if read_key(key_path(stem)) != key:
        return {}
    try:
        arrays = {name: read_array(path, "") for name, path in kept_paths(stem).items()}
    except BadInput:
        return {}
    fits = all(array.ndim == 2 and len(array) == n and array.dtype == np.float32 for array in arrays.values())
    return arrays if fits else {}


def extract(network: ms.nn.Cell, data: DataSet, stem: Path, key: dict, workers: int | None = None
            ) -> dict[str, np.ndarray]:
    """Compute what is missing of features and logits, in evaluation mode and without random transforms.

    Each batch is added to the files at once. Several ranks compute a batch each, the same ones as a single
    rank would; once all are in the files, the other ranks than the first end.

    Args:
        network: for inference.

    Returns:
        Both, memory-mapped.

    Raises:
        BadInput: a file cannot be written, or features are not finite.
    """
    batches = EvaluationBatches(data, data.train, BATCH_SIZE, data.source.feature_transform, workers,
                                (ranks.rank(), ranks.size()))

    @ms.jit
    def step(images: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        features = network.features(images)
        return features, network.classifier(features)

    n = len(data.train.labels)
    with GrowingArrays(kept_paths(stem), key_path(stem), key) as arrays:
        if arrays.rows >= n:  # read_kept has refused them
            arrays.keep(0)
        if arrays.rows:
            print(f"going on after image {arrays.rows} of {n}", flush=True)
        with progress_bar("features", n, "image", arrays.rows) as bar:
            try:
                for _, images, _ in batches.starting_at(arrays.rows):
                    # Up to n: the last batch is filled up.
                    features, logits = (ranks.gather(values.asnumpy())[:n - arrays.rows]
                                        for values in step(ms.Tensor(images)))
                    if not np.isfinite(features).all():
                        arrays.remove()
                        raise BadInput(f"{stem}.pth: gives features that are not finite; train it again")
                    arrays.append(features=features, logits=logits)
                    bar.update(len(features))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"{arrays.rows} of {n} images are done; the same command goes on "
                                        "from there") from None
    ranks.others_end()
    return read_kept(stem, key, n)


def read_dynamics(path: Path, checkpoint: Path | None, data: DataSet) -> np.ndarray:
    """The training dynamics of a run on the whole set, float16 (epochs, 3, n), memory-mapped.

    Args:
        path: dynamics.npy in the run's folder, beside its args.json.
        checkpoint: of the same run; None: not to be compared.

    Raises:
        BadInput: the file is missing, damaged, or of other images or of another run than the checkpoint.
    """
    command = f"train.py writes it for {data.name}, without --prune and with --dynamics True"
    dynamics = read_array(path, command)
    n = len(data.train.labels)
    if dynamics.dtype != np.float16 or dynamics.shape[1:] != (3, n) or not dynamics.size:
        raise BadInput(f"{path}: {dynamics.dtype} {dynamics.shape}, not float16 (epochs, 3, {n}); {command}")
    if not all(np.isfinite(dynamics[epochs]).all() for epochs in pieces.blocks(dynamics)):
        raise BadInput(f"{path}: holds numbers that are not finite; {command}")
    args = read_args(path.parent)
    if args.get("images_sha256") != data.images_sha256:
        raise BadInput(f"{path}: args.json beside it is missing or of other images than --data's; {command}")
    run = identity(args)
    # As train.py writes them, with and without dynamics.
    origins = run, *(f"{run} {hashlib.sha256(np.ascontiguousarray(epoch)).hexdigest()}" for epoch in dynamics)
    if checkpoint is not None and run_of(checkpoint) not in origins:
        raise BadInput(f"{path}: of another run than {checkpoint}; name both of one run")
    return dynamics


def read_embeddings(path: Path, n: int | None) -> np.ndarray:
    """Features of one's own, float (n, d), memory-mapped where they are float32.

    Args:
        n: rows that they must have; None: any.

    Raises:
        BadInput: they are missing, damaged, or no such array.
    """
    remedy = "save a float array (images, features) with numpy.save"
    features = read_array(path, remedy)
    if features.ndim != 2 or features.dtype.kind != "f" or not features.size:
        raise BadInput(f"{path}: {features.dtype} {features.shape}; {remedy}")
    if n not in (None, len(features)):
        raise BadInput(f"{path}: {len(features)} rows, but {n} labels; make one row an image")
    if not all(np.isfinite(features[rows]).all() for rows in pieces.blocks(features)):
        raise BadInput(f"{path}: holds numbers that are not finite; {remedy}")
    return features if features.dtype == np.float32 else features.astype(np.float32)


def read_labels(path: Path) -> np.ndarray:
    """Labels of one's own, whole numbers (n,).

    Raises:
        BadInput: they are missing, damaged, or no such array.
    """
    remedy = "save whole numbers, a label an image, with numpy.save"
    labels = np.array(read_array(path, remedy))
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise BadInput(f"{path}: {labels.dtype} {labels.shape}; {remedy}")
    return labels
