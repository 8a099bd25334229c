"""Adversarial attacks of the paper's complex scenes, on whole training sets.

An attack maps a gradient function of a network and a batch of images to a batch. Images are uint8 (n, h, w,
3); eps and alpha are in pixel units, shares of the range from 0 to 1, so that 8/255 is eight grey levels.
"""
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

import runtime
from datasets import DataSet
from datasets.images import Split
from files import BadInput, BlockFile, load_checkpoint, locked, sha256
from models import NETWORKS, create_model, load_weights
from models.layers import fold_batchnorm
from robust.options import share
from robust.results import read_record, recording, save_blocks

LEVELS = 255
PREDICTED = -1  # instead of a label: the one that the network predicts
BATCH_SIZE = 128

# Images in grey levels, float32 (n, 3, h, w), and labels, int32 (n,), to the signs of the loss's gradient.
GradientSign = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Budget:
    """How far an attack may go, in pixel units.

    Args:
        eps: the most that a value changes by.
        alpha: what it changes by in one of PGD's steps.
        steps: of PGD.
    """
    eps: float = 8 / 255
    alpha: float = 2 / 255
    steps: int = 10


def pgd(gradient_sign: GradientSign, images: np.ndarray, labels: np.ndarray, budget: Budget,
        generator: np.random.Generator) -> np.ndarray:
    """Projected gradient descent with a random start.

    Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, Section 2.1:
    x0 = image + U(-eps, eps);  x <- clip(x + alpha sign(d loss(x, label) / dx)) to within eps of the image
    and to the range of pixels.
    """
    original = to_levels(images)
    eps, alpha = np.float32(budget.eps * LEVELS), np.float32(budget.alpha * LEVELS)
    low, high = np.maximum(original - eps, 0), np.minimum(original + eps, LEVELS)
    x = np.clip(original + generator.uniform(-eps, eps, original.shape).astype(np.float32), low, high)
    for _ in range(budget.steps):
        x = np.clip(x + alpha * gradient_sign(x, labels), low, high)
    return to_pixels(x, images, budget.eps)


def gsa(gradient_sign: GradientSign, images: np.ndarray, labels: np.ndarray, budget: Budget,
        generator: np.random.Generator) -> np.ndarray:
    """One step of eps along the gradient's sign, against the label that the network predicts.

    Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015, Section 4. Neither labels
    nor generator matter.
    """
    original = to_levels(images)
    predicted = np.full(len(images), PREDICTED, np.int32)
    step = np.float32(budget.eps * LEVELS) * gradient_sign(original, predicted)
    return to_pixels(original + step, images, budget.eps)


ATTACKS = {"PGD": pgd, "GSA": gsa}


def to_levels(images: np.ndarray) -> np.ndarray:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) of the same numbers."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)


def to_pixels(x: np.ndarray, images: np.ndarray, eps: float) -> np.ndarray:
    """Grey levels (n, 3, h, w) rounded to uint8 (n, h, w, 3) within eps of the images.

    Towards them where the nearest whole number is farther away.
    """
    most = math.floor(eps * LEVELS + 1e-4)
    original = images.astype(np.int16)
    pixels = np.rint(x.transpose(0, 2, 3, 1)).astype(np.int16)
    return np.clip(np.clip(pixels, original - most, original + most), 0, LEVELS).astype(np.uint8)


class Normalised(nn.Cell):
    """A network that takes grey levels from 0 to 255, (n, 3, h, w), and normalises them itself."""

    def __init__(self, network: nn.Cell, data: DataSet) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        mean, std = np.array(data.mean), np.array(data.std)
        self.scale = ms.Tensor((1 / (LEVELS * std))[:, None, None], ms.float32)
        self.shift = ms.Tensor((-mean / std)[:, None, None], ms.float32)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.network(x * self.scale + self.shift)


def make_gradient_sign(network: nn.Cell, data: DataSet) -> GradientSign:
    """Signs of the gradient of the cross-entropy's sum with respect to the images alone, compiled.

    The sum and not the mean, lest a small gradient become zero in float32. A label of -1 stands for the
    predicted one.

    Args:
        network: in evaluation mode.
    """
    normalised = Normalised(network, data)

    def loss(images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        logits = normalised(images)
        labels = ops.select(labels < 0, ops.argmax(logits, 1).astype(ms.int32), labels)
        return ops.cross_entropy(logits, labels, reduction="sum")

    gradient = ms.grad(loss, 0)

    @ms.jit
    def step(images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        return ops.sign(gradient(images, labels))

    return lambda images, labels: step(ms.Tensor(images), ms.Tensor(labels)).asnumpy()


def make_predict(network: nn.Cell, data: DataSet) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 (n, h, w, 3) to the network's labels, int32 (n,), compiled."""
    normalised = Normalised(network, data)

    @ms.jit
    def step(images: ms.Tensor) -> ms.Tensor:
        return ops.argmax(normalised(images), 1).astype(ms.int32)

    return lambda images: step(ms.Tensor(to_levels(images))).asnumpy()


def load_network(arch: str, checkpoint: Path, data: DataSet) -> nn.Cell:
    """A trained network in evaluation mode, its batch normalisations folded into its convolutions.

    Raises:
        BadInput: the checkpoint is missing or belongs to another network or data set.
    """
    network = create_model(arch, len(data.classes), data.small_images)
    load_weights(network, load_checkpoint(checkpoint), str(checkpoint), arch)
    fold_batchnorm(network)
    return network.set_train(False)


def attacked_batches(network: nn.Cell, data: DataSet, split: Split, attack: str, budget: Budget, seed: int,
                     batch_size: int, first: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Attack a split of a data set batch by batch, from batch number `first` on.

    A batch's random start depends on `seed` and the batch's number alone.

    Yields:
        The attacked images, uint8 (n, h, w, 3), and whether the network labels each rightly before and after,
        bool (n, 2).
    """
    gradient_sign, predict = make_gradient_sign(network, data), make_predict(network, data)
    n = len(split.labels)
    for number in range(first, -(-n // batch_size)):
        # The last one is filled up: one graph.
        rows = np.arange(number * batch_size, (number + 1) * batch_size) % n
        clean, labels = split.pixels(rows), split.labels[rows]
        attacked = ATTACKS[attack](gradient_sign, clean, labels, budget,
                                   np.random.default_rng([seed, number]))
        right = np.stack([predict(pixels) == labels for pixels in (clean, attacked)], axis=1)
        count = min(batch_size, n - number * batch_size)
        yield attacked[:count], right[:count]


def add_options(parser: runtime.Parser, attack: str, checkpoint: Path) -> None:
    """Add the options of an attack to those of `robust.options.make_parser`."""
    parser.add_argument("--attack", default=attack, choices=ATTACKS, help="attack type")
    parser.add_argument("--ckpt", default=checkpoint, type=Path,
                        help="checkpoint of a network trained on the data set")
    parser.add_argument("--arch", default="resnet50", choices=NETWORKS, help="network of --ckpt")
    parser.add_argument("--device", default="auto", choices=runtime.DEVICES,
                        help="auto: the best one present")
    parser.add_argument("--batch_size", default=BATCH_SIZE, type=runtime.positive, help="images at one time")
    parser.add_argument("--eps", default=Budget.eps, type=share,
                        help="the most that a pixel changes by; 8/255 is eight of 255 grey levels")
    parser.add_argument("--alpha", default=Budget.alpha, type=share,
                        help="what it changes by in a step of PGD")
    parser.add_argument("--steps", default=Budget.steps, type=runtime.positive, help="steps of PGD")


def attack_to_file(data: DataSet, path: Path, record_path: Path, attack: str, budget: Budget, arch: str,
                   checkpoint: Path, device: str, batch_size: int, seed: int) -> None:
    """Attack a data set's training images into a .npy file, going on with an earlier run that was stopped.

    Prints the network's accuracy before and after, and writes it with the settings to `record_path`. Does
    nothing where the file is there already.

    Raises:
        BadInput: the checkpoint does not fit; eps is less than a grey level; files cannot be written, or an
            unfinished run has other settings.
    """
    if budget.eps * LEVELS < 1 - 1e-4:
        raise BadInput(f"--eps {budget.eps:g}: less than one grey level, so that no image would change; name "
                       "1/255 or more")
    key = {"dataset": data.name, "images": len(data.train.labels), "images_sha256": data.train.sha256(),
           "arch": arch, "checkpoint_sha256": sha256(checkpoint), "attack": attack, "eps": budget.eps}
    if attack == "PGD":
        key |= {"alpha": budget.alpha, "steps": budget.steps, "seed": seed}
    batch_size = min(batch_size, len(data.train.labels))
    key |= {"batch_size": batch_size, "device": device, "mindspore": ms.__version__}
    with locked(path.parent):
        record = read_record(record_path, "delete it")
        if all(record.get(name) == value for name, value in key.items()) and path.exists() and (
                sha256(path) == record.get("sha256")):
            print(f"{path}: this attack is there already")
        else:
            network = load_network(arch, checkpoint, data)
            record = attack_training_set(network, data, attack, budget, seed, batch_size, path, record_path,
                                         key)
    print(f"{attack}: accuracy of {arch} on the {key['images']} training images "
          f"{record['accuracy_before']:.2f} % before, {record['accuracy_after']:.2f} % after; {path}")


def attack_training_set(network: nn.Cell, data: DataSet, attack: str, budget: Budget, seed: int,
                        batch_size: int, path: Path, record_path: Path,
                        key: dict[str, Any]) -> dict[str, Any]:
    """Attack what an earlier run with the same key has not attacked, and write the images and the record.

    Batches are kept in a hidden file beside `path` until all are there. A row of it is an image's bytes, and
    whether the network labels it rightly before and after.

    Returns:
        The record: the key, the file's SHA-256 and the accuracies in percent.

    Raises:
        BadInput: files cannot be written, or an unfinished run has other settings.
    """
    n, shape = len(data.train.labels), data.train.pixels([0]).shape[1:]
    partial = path.with_name(f".{path.stem}.partial")
    check_key(partial, key)
    with BlockFile(partial, json.dumps(key)) as file, runtime.ProgressBar(attack, n, "image") as bar:
        right = [block[:, -2:].copy() for block in file.read()]
        done = sum(map(len, right))
        if done:
            print(f"going on after image {done} of {n}", flush=True)
            bar.skip(done)

        def state() -> str:
            before, after = 100 * np.concatenate(right).mean(axis=0)
            return f"accuracy {before:.2f} % before, {after:.2f} % after"

        batches = attacked_batches(network, data, data.train, attack, budget, seed, batch_size, len(right))
        try:
            for pixels, rights in batches:
                file.append(np.concatenate([pixels.reshape(len(pixels), -1), rights], axis=1))
                right.append(rights)
                bar.update(len(pixels), state)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on from there") from None
        before, after = 100 * np.concatenate(right).mean(axis=0)
        with recording(record_path, {**key, "accuracy_before": before, "accuracy_after": after}) as record:
            save_blocks(path, (n, *shape), (block[:, :-2].reshape(-1, *shape) for block in file.read()))
            record["sha256"] = sha256(path)
    partial.unlink()
    return record


def check_key(partial: Path, key: dict[str, Any]) -> None:
    """Make sure that an unfinished file, if there is one, was begun with the same settings.

    Raises:
        BadInput: it was not.
    """
    if not partial.exists():
        return
    with open(partial, "rb") as file:
        line = file.readline(2 ** 16)
    if not line.endswith(b"\n") and len(line) < 2 ** 16:
        return  # stopped while the first line was written: nothing is lost
    try:
        begun = json.loads(line)
    except (ValueError, RecursionError):
        begun = None
    if not isinstance(begun, dict):
        raise BadInput(f"{partial}: not the file of an unfinished attack; delete it to start anew")
    differing = [name for name in {**begun, **key} if begun.get(name) != key.get(name)]
    if differing:
        raise BadInput(f"{partial}: an unfinished attack with " + ", ".join(
            f"{name} {begun.get(name)} (not {key.get(name)})" for name in differing)
            + "; finish it with those, or delete this file to start anew")
