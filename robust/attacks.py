"""Adversarial attacks of the paper's complex scenes, on whole training sets.

An attack maps a gradient function of a network and a batch of images to a batch. Images are uint8 (n, h, w,
3); eps and alpha are in pixel units, on the range from 0 to 1, so that 8/255 is eight gray levels.
"""
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from datasets import DataSet
from datasets.images import Split
from models import NETWORKS
from models.checkpoint import find_arch, load_network
from robust.options import make_parser
from robust.records import recording
from utils import ranks
from utils.arrays import GrowingArrays, read_key
from utils.device import random_stream, set_up
from utils.files import BadInput, locked, read_json, sha256
from utils.options import add_device_option, fraction, positive
from utils.progress import progress_bar
from utils.runs import read_args

LEVELS = 255
PREDICTED = -1  # instead of a label: the one that the network predicts
BATCH_SIZE = 128

# Images in gray levels, float32 (n, 3, h, w), and labels, int32 (n,), to the signs of the loss's gradient.
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


@dataclass(frozen=True)
class Attack:
    """An attack on a data set by a trained network.

    Args:
        name: of ATTACKS.
        arch, checkpoint: the network.
        device: its name; results differ a little from one to another.
        batch_size: images at one time.
        seed: of random starts.
    """
    name: str
    budget: Budget
    arch: str
    checkpoint: Path
    device: str
    batch_size: int = BATCH_SIZE
    seed: int = 42


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
    """FGSM: one step of eps along the gradient's sign, against the label that the network predicts.

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
    """Gray levels (n, 3, h, w) truncated to uint8 (n, h, w, 3), as in the release, within eps of the images.

    Towards them where the whole number below is farther away.
    """
    most = math.floor(eps * LEVELS + 1e-4)
    original = images.astype(np.int16)
    pixels = np.floor(x.transpose(0, 2, 3, 1)).astype(np.int16)
    return np.clip(np.clip(pixels, original - most, original + most), 0, LEVELS).astype(np.uint8)


class Normalized(nn.Cell):
    """A network that takes gray levels from 0 to 255, (n, 3, h, w), and normalizes them itself."""

    def __init__(self, network: nn.Cell, data: DataSet) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        mean, std = np.array(data.source.mean), np.array(data.source.std)
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
    normalized = Normalized(network, data)

    def loss(images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        logits = normalized(images)
        labels = ops.select(labels < 0, ops.argmax(logits, 1).astype(ms.int32), labels)
        return ops.cross_entropy(logits, labels, reduction="sum")

    gradient = ms.grad(loss, 0)

    @ms.jit
    def step(images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        return ops.sign(gradient(images, labels))

    return lambda images, labels: step(ms.Tensor(images), ms.Tensor(labels)).asnumpy()


def make_predict(network: nn.Cell, data: DataSet) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 (n, h, w, 3) to the network's labels, int32 (n,), compiled."""
    normalized = Normalized(network, data)

    @ms.jit
    def step(images: ms.Tensor) -> ms.Tensor:
        return ops.argmax(normalized(images), 1).astype(ms.int32)

    return lambda images: step(ms.Tensor(to_levels(images))).asnumpy()


def attacked_batches(network: nn.Cell, data: DataSet, split: Split, attack: Attack,
                     first: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Attack a split of a data set batch by batch, from batch number `first` on.

    A batch's random start depends on the seed and the batch's number alone. Several ranks attack a batch each
    at one time; all yield the images of all.

    Yields:
        The attacked images, uint8 (n, h, w, 3), and whether the network labels each correctly before and
        after, bool (n, 2).
    """
    gradient_sign, predict = make_gradient_sign(network, data), make_predict(network, data)
    n, size = len(split.labels), attack.batch_size
    for done in range(first * size, n, size * ranks.size()):
        number = done // size + ranks.rank()
        # The last one is filled up: one graph.
        rows = np.arange(number * size, (number + 1) * size) % n
        clean, labels = split.pixels(rows), split.labels[rows]
        attacked = ATTACKS[attack.name](gradient_sign, clean, labels, attack.budget,
                                        random_stream(attack.seed, attack.name, number))
        correct = np.stack([predict(pixels) == labels for pixels in (clean, attacked)], axis=1)
        yield ranks.gather(attacked)[:n - done], ranks.gather(correct)[:n - done]


def parse_options(description: str, attack: str, checkpoint: Path) -> tuple[Path, Attack]:
    """The folder of the data sets, and the attack, from the command line; sets the device up.

    Args:
        attack, checkpoint: defaults.
    """
    parser = make_parser(description)
    parser.add_argument("--attack", default=attack, choices=ATTACKS, help="attack type")
    parser.add_argument("--ckpt", default=checkpoint, type=Path,
                        help="checkpoint of a network trained on the data set")
    parser.add_argument("--arch", choices=NETWORKS, help="network of --ckpt; None: as args.json beside "
                        "--ckpt says, else resnet50")
    add_device_option(parser)
    parser.add_argument("--batch_size", default=BATCH_SIZE, type=positive, help="images at one time")
    parser.add_argument("--eps", default=Budget.eps, type=fraction,
                        help="the most that a pixel changes by; 8/255 is eight of 255 gray levels")
    parser.add_argument("--alpha", default=Budget.alpha, type=fraction,
                        help="what it changes by in a step of PGD")
    parser.add_argument("--steps", default=Budget.steps, type=positive, help="steps of PGD")
    args = parser.parse_args()
    return args.data, Attack(args.attack, Budget(args.eps, args.alpha, args.steps),
                             find_arch(args.arch, args.ckpt), args.ckpt, set_up(args.device, args.seed),
                             args.batch_size, args.seed)


def attack_to_file(data: DataSet, path: Path, record_path: Path, attack: Attack) -> None:
    """Attack a data set's training images into a .npy file, going on with an earlier run that was stopped.

    Prints the network's accuracy before and after, and writes it with the settings to `record_path`. Does
    nothing where the file is there already.

    Raises:
        BadInput: the checkpoint does not fit; eps is less than a gray level; files cannot be written, or an
            unfinished run has other settings.
    """
    if attack.budget.eps * LEVELS < 1 - 1e-4:
        raise BadInput(f"--eps {attack.budget.eps:g}: less than one gray level, so that no image would "
                       "change; name 1/255 or more")
    n = len(data.train.labels)
    attack = replace(attack, batch_size=min(attack.batch_size, n))
    key = attack_key(data, attack)
    with locked(path.parent):
        record = read_json(record_path, "delete it")
        if all(record.get(name) == value for name, value in key.items()) and path.exists() and (
                sha256(path) == record.get("sha256")):
            left = unfinished_files(path)
            if read_key(left["key"]) == key:  # a kill at the very end has left them
                for hidden in left.values():
                    hidden.unlink(missing_ok=True)
            print(f"{path}: this attack is there already")
        else:
            network = load_attacked(data, attack.arch, attack.checkpoint)
            record = attack_training_set(network, data, attack, path, record_path, key)
    print(f"{attack.name}: accuracy of {attack.arch} on the {n} training images "
          f"{record['accuracy_before']:.2f} % before, {record['accuracy_after']:.2f} % after; {path}")


def load_attacked(data: DataSet, arch: str, checkpoint: Path) -> nn.Cell:
    """A network that was trained on images of the data set's size, which is to be attacked.

    Raises:
        BadInput: the checkpoint does not fit, or args.json beside it names another size.
    """
    trained = read_args(checkpoint.parent).get("image_size") or data.image_size
    if trained != data.image_size:
        raise BadInput(f"{checkpoint}: trained on images of {trained}x{trained} pixels, not on those of "
                       f"{data.image_size}x{data.image_size} to be attacked; train it without --image_size")
    return load_network(arch, checkpoint, len(data.classes), data.source.small_images)


def unfinished_files(path: Path) -> dict[str, Path]:
    """The hidden files of an unfinished attack: images so far, which are labeled correctly, and its key."""
    return {name: path.with_name(f".{path.stem}{ending}") for name, ending in
            (("images", ".images.npy"), ("correct", ".correct.npy"), ("key", ".json"))}


def attack_key(data: DataSet, attack: Attack) -> dict[str, Any]:
    """All that the attacked images depend on."""
    key = {"dataset": data.name, "images": len(data.train.labels), "images_sha256": data.images_sha256,
           "arch": attack.arch, "checkpoint_sha256": sha256(attack.checkpoint), "attack": attack.name,
           "eps": attack.budget.eps, "batch_size": attack.batch_size, "device": attack.device,
           "mindspore": ms.__version__}
    if attack.name == "PGD":
        key |= {"alpha": attack.budget.alpha, "steps": attack.budget.steps, "seed": attack.seed}
    return key


def attack_training_set(network: nn.Cell, data: DataSet, attack: Attack, path: Path, record_path: Path,
                        key: dict[str, Any]) -> dict[str, Any]:
    """Attack what an earlier run with the same key has not attacked, and write the images and the record.

    Images so far, and whether the network labels each correctly before and after, are kept in hidden files
    beside `path` until all are there.

    Returns:
        The record: the key, the file's SHA-256 and the accuracies in percent.

    Raises:
        BadInput: files cannot be written, or an unfinished run has other settings.
    """
    n = len(data.train.labels)
    paths = unfinished_files(path)
    key_path = paths.pop("key")
    check_key(key_path, key)
    with GrowingArrays(paths, key_path, key) as arrays, progress_bar(attack.name, n, "image",
                                                                     arrays.rows) as bar:
        if arrays.rows:
            print(f"going on after image {arrays.rows} of {n}", flush=True)
        try:
            for images, correct in attacked_batches(network, data, data.train, attack,
                                                    -(-arrays.rows // attack.batch_size)):
                arrays.append(images=images, correct=correct)
                bar.update(len(images))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on from there") from None
        ranks.others_end()
        before, after = 100 * np.load(paths["correct"]).mean(axis=0)
        digest = sha256(paths["images"])  # seconds of a large file, in which a kill must not cost the attack
        with recording(record_path, {**key, "accuracy_before": before, "accuracy_after": after,
                                     "sha256": digest}) as record:
            os.replace(paths["images"], path)
        arrays.remove()
    return record


def check_key(path: Path, key: dict[str, Any]) -> None:
    """Make sure that an unfinished attack, if there is one, was begun with the same settings.

    Raises:
        BadInput: it was not.
    """
    begun = read_json(path, "delete it to start anew")
    differing = [name for name in {**begun, **key} if begun and begun.get(name) != key.get(name)]
    if differing:
        raise BadInput(f"{path}: an unfinished attack with " + ", ".join(
            f"{name} {begun.get(name)} (not {key.get(name)})" for name in differing)
            + "; finish it with those, or delete this file to start anew")
