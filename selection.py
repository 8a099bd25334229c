"""Choose a coreset: keep the training images whose distances to their class centres lie nearest the median.

    python selection.py --dataset CIFAR100 --ckpt ckpt/CIFAR100/resnet50/best.pth --rate 0.2

Writes <save>/<dataset>.bin (ids to drop), .json (manifest), .distances.npz and .png.
"""
import argparse
import json
from pathlib import Path

import runtime  # first: it sets what MindSpore reads when it is loaded
import mindspore as ms
import numpy as np

from datasets import SOURCES, DataSet, open_dataset
from datasets.index import METHODS, write_index
from datasets.pipeline import PADDING, EvaluationBatches
from files import BadInput, BlockFile, load_checkpoint, locked, replacing, sha256
from models import NETWORKS, create_model, load_weights
from models.layers import fold_batchnorm
from picture import draw_selection

BATCH_SIZE = 64
BLOCK_BYTES = 8 * 2 ** 20  # of features that the distance step copies at one time
CENTRES = {"median": np.median, "mean": np.mean}


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = runtime.Parser(description="Choose a coreset by distance to the class centre.",
                            formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    data = parser.add_argument_group("data and network")
    data.add_argument("--dataset", default="CIFAR100", choices=SOURCES, help="data set")
    data.add_argument("--data", default="data", type=Path, help="folder that holds the data set's own "
                      "folder; for tiny, that folder itself")
    data.add_argument("--arch", default="resnet50", choices=NETWORKS, help="network of --ckpt")
    data.add_argument("--ckpt", type=Path, help="checkpoint of a network trained on the whole data set")
    data.add_argument("--device", default="auto", choices=runtime.DEVICES, help="auto: the best one present")
    choice = parser.add_argument_group("selection")
    choice.add_argument("--rate", default=1.0, type=float,
                        help="share of the images to keep, above 0, at most 1")
    choice.add_argument("--method", default="moderate", choices=METHODS,
                        help="moderate: the paper's; random: as many images drawn by --seed, for comparison")
    choice.add_argument("--center", default="median", choices=CENTRES,
                        help="class centre: coordinate-wise median (the release) or mean (the paper's Eq. 1)")
    choice.add_argument("--seed", default=42, type=runtime.seed_number, help="of --method random")
    choice.add_argument("--save", default="index", type=Path, help="folder of the index")
    args = parser.parse_args(argv)
    if not 0 < args.rate <= 1:
        parser.error(f"--rate {args.rate:g}: must be above 0 and at most 1")
    if args.method == "moderate" and args.ckpt is None:
        parser.error("--ckpt: missing; name the best.pth that train.py wrote")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    runtime.set_up(args.device, args.seed)
    manifest = {"dataset": args.dataset, "method": args.method, "rate": args.rate}
    if args.method == "moderate":
        manifest |= {"centre": args.center, "arch": args.arch, "checkpoint": str(args.ckpt),
                     "checkpoint_sha256": sha256(args.ckpt)}
    else:
        manifest |= {"seed": args.seed}
    data = open_dataset(args.dataset, args.data)
    manifest |= {"images_sha256": data.train.sha256()}
    n = len(data.train.labels)
    if len(ids_to_drop(np.arange(n), args.rate)) == n:
        raise BadInput(f"--rate {args.rate:g}: keeps none of {n} images; name a larger one")
    index = args.save / f"{args.dataset}.bin"
    with locked(args.save):
        if args.method == "random":
            drop = ids_to_drop(random_order(n, args.seed), args.rate)
            index.with_suffix(".png").unlink(missing_ok=True)  # it would show another selection
        else:
            distances = find_distances(data, manifest, args.ckpt, index)
            order = np.argsort(distances, kind="stable")  # ties by id
            drop = ids_to_drop(order, args.rate)
            kept = np.delete(np.arange(n), drop)
            manifest |= {"kept_band": [float(distances[kept].min()), float(distances[kept].max())]}
            with replacing(index.with_suffix(".png")) as temporary:
                draw_selection(data, distances, order, kept, args.rate).save(temporary, format="PNG")
        manifest |= {"images": n, "kept": n - len(drop), "dropped": len(drop), "versions": runtime.versions()}
        write_index(index, drop, manifest)
    print(f"kept {n - len(drop)} of {n} images; ids to drop in {index}")


def find_distances(data: DataSet, manifest: dict, checkpoint: Path, index: Path) -> np.ndarray:
    """Each training image's distance to its class centre, float64 (n,).

    From <index>.distances.npz if that fits, else computed and put there; the features of a run that was
    stopped are taken from <index>.features.partial.

    Raises:
        BadInput: the checkpoint does not fit the network, its features are not finite, or a file cannot be
            written.
    """
    key = {name: manifest[name] for name in ("dataset", "arch", "checkpoint_sha256", "images_sha256")}
    centred_key = {**key, "centre": manifest["centre"]}
    path, partial = index.with_suffix(".distances.npz"), index.with_suffix(".features.partial")
    distances = read_distances(path, centred_key, len(data.train.labels))
    if distances is not None:
        print(f"using the distances in {path}: same images, network and centre")
        return distances
    network = create_model(manifest["arch"], len(data.classes), data.small_images)
    load_weights(network, load_checkpoint(checkpoint), str(checkpoint), manifest["arch"])
    features = extract_features(network, data, partial, key)
    if not np.isfinite(features).all():
        partial.unlink()
        raise BadInput(f"{checkpoint}: gives features that are not finite numbers; train it again")
    distances = distances_to_centres(features, data.train.labels, manifest["centre"])
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, distances=distances, key=np.array(json.dumps(centred_key, sort_keys=True)))
    partial.unlink()
    return distances


def read_distances(path: Path, key: dict, images: int) -> np.ndarray | None:
    """The distances kept in a file, or None where there are none or they belong to something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            distances = file["distances"]
            if str(file["key"]) == json.dumps(key, sort_keys=True) and distances.shape == (images,):
                return distances
    except Exception:  # missing or damaged: they are only a saving, and are computed again
        pass
    return None


def extract_features(network: ms.nn.Cell, data: DataSet, partial: Path, key: dict) -> np.ndarray:
    """Features of the training images, float32 (n, d), in evaluation mode and without random transforms.

    The network's batch normalisations are folded into its convolutions for it. Each batch's features are
    added to the file `partial` at once, and taken from it where a run with the same key was stopped.

    Raises:
        BadInput: `partial` cannot be written.
    """
    fold_batchnorm(network)
    batches = EvaluationBatches(data, data.train, BATCH_SIZE)

    @ms.jit
    def step(images: ms.Tensor) -> ms.Tensor:
        return network.features(images)

    n = len(data.train.labels)
    features, done = np.empty((0, 0), np.float32), 0

    def put(block: np.ndarray) -> None:
        nonlocal features, done
        if not done:  # at once in full: blocks kept until the end would take as much memory again
            features = np.empty((n, block.shape[1]), block.dtype)
        features[done:done + len(block)] = block
        done += len(block)

    with (BlockFile(partial, json.dumps(key, sort_keys=True)) as file,
          runtime.ProgressBar("features", n, "image") as bar):
        for block in file.read():
            put(block)
        if done:
            print(f"going on after image {done} of {n}", flush=True)
            bar.skip(done)
        try:
            for index, images, _ in batches.starting_at(done):
                block = step(ms.Tensor(images)).asnumpy()[index != PADDING]
                file.append(block)
                put(block)
                bar.update(len(block))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{done} of {n} images are done; the same command goes on from "
                                    "there") from None
    return features


def distances_to_centres(features: np.ndarray, labels: np.ndarray, centre: str = "median") -> np.ndarray:
    """Euclidean distance of each sample to its own class's centre (paper, Section 3).

    Args:
        features: float (n, d).
        labels: (n,), any numbers; gaps and classes of one sample are fine.
        centre: "median", coordinate by coordinate, or "mean" (the paper's Eq. 1).

    Returns:
        float64 (n,). Copies some columns of one class at a time, for features that barely fit into memory.
    """
    distances = np.empty(len(labels))
    by_class = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_class])) + 1
    for members in np.split(by_class, starts):
        columns = max(1, BLOCK_BYTES // (features.itemsize * len(members)))
        squares = np.zeros(len(members))
        for first in range(0, features.shape[1], columns):
            block = np.ascontiguousarray(features[members, first:first + columns].T)
            centres = CENTRES[centre](block, axis=1, keepdims=True).astype(features.dtype)
            difference = block - centres.astype(float)
            squares += np.einsum("dn,dn->n", difference, difference)
        distances[members] = np.sqrt(squares)
    return distances


def random_order(n: int, seed: int) -> np.ndarray:
    """A random order of n ids.

    Its stream is its own: from that of `seed` alone robust/corrupt-cifar.py draws the images that it
    corrupts, and a selection by the same seed would keep none of them.
    """
    return np.random.default_rng([seed, *b"random"]).permutation(n)


def ids_to_drop(order: np.ndarray, rate: float) -> np.ndarray:
    """Ids outside the middle n * rate of `order` (ids by ascending distance), with the release's rounding.

    Args:
        rate: share to keep, in (0, 1].
    """
    n = len(order)
    return np.concatenate([order[:round(n * (0.5 - rate / 2))], order[round(n * (0.5 + rate / 2)):]])


if __name__ == "__main__":
    runtime.run_script(main)
