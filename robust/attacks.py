"""Adversarial attacks of the paper's complex scenes.

An attack maps a gradient function of a network and a batch of images to a batch. Images are uint8 (n, h, w,
3); eps and alpha are in pixel units, on the range from 0 to 1, so that 8/255 is eight gray levels.
"""
import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from datasets import DataSet
from datasets.images import Split
from datasets.transforms import as_array
from models import NETWORKS
from models.checkpoint import find_arch, load_network
from robust.options import begin_files, check_own, write_record
from robust.project import ROOT
from utils import arrays, distributed
from utils.device import random_stream
from utils.errors import BadInput
from utils.files import locked, read_json, sha256, write_array
from utils.options import Parser, add_device_option, fraction, positive
from utils.runs import read_args

LEVELS = 255
PREDICTED = -1  # in place of a label: the one that the network predicts

# From images in gray levels, float32 (n, 3, h, w), and labels, int32 (n,), to the signs of a loss's gradient.
GradientSign = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Attack:
    """An attack on a data set by a trained network."""
    name: str  # one of ATTACKS
    arch: str
    checkpoint: Path
    eps: float = 8 / 255  # the largest change of a value, in pixel units
    alpha: float = 2 / 255  # its change in one step of PGD
    steps: int = 10  # of PGD
    batch_size: int = 128
    seed: int = 42  # for random starts


def pgd(gradient_sign: GradientSign, images: np.ndarray, labels: np.ndarray, attack: Attack,
        generator: np.random.Generator) -> np.ndarray:
    """Projected gradient descent with a random start.

    Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, Section 2.1:
    x0 = image + U(-eps, eps);  x <- clip(x + alpha sign(d loss(x, label) / dx)) to within eps of the image
    and to the range of pixels.
    """
    original = to_levels(images)
    eps, alpha = np.float32(attack.eps * LEVELS), np.float32(attack.alpha * LEVELS)
    low, high = np.maximum(original - eps, 0), np.minimum(original + eps, LEVELS)
    x = np.clip(original + generator.uniform(-eps, eps, original.shape).astype(np.float32), low, high)
    for _ in range(attack.steps):
        x = np.clip(x + alpha * gradient_sign(x, labels), low, high)
    return to_pixels(x, images, attack.eps)


def gsa(gradient_sign: GradientSign, images: np.ndarray, labels: np.ndarray, attack: Attack,
        generator: np.random.Generator) -> np.ndarray:
    """FGSM: one step of eps along the gradient's sign, against the label that the network predicts.

    Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015, Section 4. Labels and
    generator are not used.
    """
    original = to_levels(images)
    predicted = np.full(len(images), PREDICTED, np.int32)
    step = np.float32(attack.eps * LEVELS) * gradient_sign(original, predicted)
    return to_pixels(original + step, images, attack.eps)


ATTACKS = {"PGD": pgd, "GSA": gsa}


def to_levels(images: np.ndarray) -> np.ndarray:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) of the same numbers."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)


def to_pixels(x: np.ndarray, images: np.ndarray, eps: float) -> np.ndarray:
    """Gray levels (n, 3, h, w), truncated as in the release, as uint8 (n, h, w, 3) within eps of `images`."""
    limit = math.floor(eps * LEVELS + 1e-4)
    original = images.astype(np.int16)
    pixels = np.floor(x.transpose(0, 2, 3, 1)).astype(np.int16)
    return np.clip(np.clip(pixels, original - limit, original + limit), 0, LEVELS).astype(np.uint8)


def of_levels(network: nn.Cell, data: DataSet) -> Callable[[ms.Tensor], ms.Tensor]:
    """The network as a function of gray levels from 0 to 255, (n, 3, h, w), which it normalizes itself."""
    scale, shift = map(ms.Tensor, data.source.scale_and_shift())

    def logits(x: ms.Tensor) -> ms.Tensor:
        return network(x * scale + shift)

    return logits


def make_gradient_sign(network: nn.Cell, data: DataSet) -> GradientSign:
    """The signs of the cross-entropy's gradient with respect to the images, compiled.

    The network is in evaluation mode. The loss is the sum and not the mean over the batch, because a small
    gradient could become zero in float32. A label of -1 means the predicted one.
    """
    logits_of = of_levels(network, data)

    def loss(images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        logits = logits_of(images)
        labels = ops.select(labels < 0, ops.argmax(logits, 1).astype(ms.int32), labels)
        return ops.cross_entropy(logits, labels, reduction="sum")

    gradient = ms.grad(loss, 0)

    @ms.jit
    def step(images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        return ops.sign(gradient(images, labels))

    return lambda images, labels: step(ms.Tensor(images), ms.Tensor(labels)).asnumpy()


def make_predict(network: nn.Cell, data: DataSet) -> Callable[[np.ndarray], np.ndarray]:
    """A compiled function that maps images, uint8 (n, h, w, 3), to predicted labels, int (n,)."""
    logits_of = ms.jit(of_levels(network, data))
    return lambda images: logits_of(ms.Tensor(to_levels(images))).asnumpy().argmax(1)


def attacked_batches(network: nn.Cell, data: DataSet, split: Split, attack: Attack,
                     first: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Attack a split of a data set batch by batch, starting with batch number `first`.

    A batch's random start depends only on the seed and the batch's number. Several ranks attack one batch
    each at a time; all of them yield all images.

    Yields:
        images: attacked, uint8 (n, h, w, 3).
        correct: whether the network classifies each one correctly before and after, bool (n, 2).
    """
    gradient_sign, predict = make_gradient_sign(network, data), make_predict(network, data)
    n, size = len(split.labels), attack.batch_size
    for done in range(first * size, n, size * distributed.size()):
        number = done // size + distributed.rank()
        # The last batch is padded, so that all batches use one compiled graph.
        rows = np.arange(number * size, (number + 1) * size) % n
        clean, labels = as_array(split.pixels(rows)), split.labels[rows]
        attacked = ATTACKS[attack.name](gradient_sign, clean, labels, attack,
                                        random_stream(attack.seed, attack.name, number))
        correct = np.stack([predict(pixels) == labels for pixels in (clean, attacked)], axis=1)
        yield {name: distributed.all_gather(values)[:n - done]
               for name, values in (("images", attacked), ("correct", correct))}


def parse_attack_options(parser: Parser, attack: str) -> tuple[argparse.Namespace, Attack]:
    """The command line's options, and the attack that they describe; `attack` is the default of --attack."""
    parser.add_argument("--attack", default=attack, choices=ATTACKS, help="attack type")
    parser.add_argument("--ckpt", type=Path, help="checkpoint of a network trained on the data set "
                        "(default: ckpt/<data set>/resnet50/best.pth in the project's folder)")
    parser.add_argument("--arch", choices=NETWORKS, help="network of --ckpt (default: as in args.json "
                        "beside it, else resnet50)")
    add_device_option(parser)
    parser.add_argument("--batch_size", default=Attack.batch_size, type=positive, help="images per batch")
    parser.add_argument("--eps", default=Attack.eps, type=fraction,
                        help="largest change of a pixel; 8/255 is eight of 255 gray levels")
    parser.add_argument("--alpha", default=Attack.alpha, type=fraction, help="step size of PGD")
    parser.add_argument("--steps", default=Attack.steps, type=positive, help="number of PGD steps")
    args = parser.parse_args()
    args.ckpt = args.ckpt or ROOT / f"ckpt/{args.dataset}/resnet50/best.pth"
    return args, Attack(args.attack, find_arch(args.arch, args.ckpt), args.ckpt, args.eps, args.alpha,
                        args.steps, args.batch_size, args.seed)


def attack_to_file(data: DataSet, path: Path, record_path: Path, attack: Attack, device: str,
                   all_images: Split | None = None) -> None:
    """Attack a data set's training images and write them to a .npy file; resume an attack that was stopped.

    Prints the network's accuracy before and after, and writes it with the settings to `record_path`. Images
    that exist already are not attacked again.

    Args:
        device: its name, since results differ slightly between devices.
        all_images: if `data` has only the first classes; images of the others are written unchanged.
    """
    if attack.eps * LEVELS < 1 - 1e-4:
        raise BadInput(f"--eps {attack.eps:g}: less than one gray level, so no image would change; pass "
                       "1/255 or more")
    n = len(data.train.labels)
    attack = replace(attack, batch_size=min(attack.batch_size, n))
    key = attack_key(data, attack, device)
    with locked(path.parent):
        record = read_json(record_path, "delete it")
        if all(record.get(name) == value for name, value in key.items()) and path.exists() and (
                sha256(path) == record.get("sha256")):
            print(f"{path}: this attack exists already")
        else:
            record = attack_training_set(data, attack, path, record_path, key, all_images)
    print(f"{attack.name}: accuracy of {attack.arch} on the {n} training images "
          f"{record['accuracy_before']:.2f} % before, {record['accuracy_after']:.2f} % after; {path}")


def load_attacked(data: DataSet, arch: str, checkpoint: Path) -> nn.Cell:
    """The network to attack; BadInput if it was trained on images of another size."""
    trained = read_args(checkpoint.parent).get("image_size") or data.image_size
    if trained != data.image_size:
        raise BadInput(f"{checkpoint}: trained on images of {trained}x{trained} pixels, but the images to "
                       f"attack have {data.image_size}x{data.image_size}; train it without --image_size")
    return load_network(arch, checkpoint, len(data.classes), data.source.small_images)


def attack_key(data: DataSet, attack: Attack, device: str) -> dict[str, Any]:
    """Everything that the attacked images depend on."""
    key = {"dataset": data.name, "images": len(data.train.labels), "clean_sha256": data.images_sha256,
           "classes": None if data.train.subset is None else len(data.classes), "arch": attack.arch,
           "checkpoint_sha256": sha256(attack.checkpoint), "attack": attack.name, "eps": attack.eps,
           "batch_size": attack.batch_size, "device": device, "mindspore": ms.__version__}
    if attack.name == "PGD":
        key |= {"alpha": attack.alpha, "steps": attack.steps, "seed": attack.seed}
    return key


def attack_training_set(data: DataSet, attack: Attack, path: Path, record_path: Path,
                        key: dict[str, Any], all_images: Split | None = None) -> dict[str, Any]:
    """Attack the images that an earlier run with the same key has left; write and return the record.

    The record is the key, the accuracies in percent and the file's SHA-256. Raises BadInput if there is an
    unfinished attack with other settings, or a file that this script did not write.
    """
    check_own(record_path, path)  # before a long pass
    unfinished = arrays.record_path(path)
    begun = read_json(unfinished, "delete it to start again").get("key", key)
    if begun != key:
        raise BadInput(f"{unfinished}: an unfinished attack with " + ", ".join(
            f"{name} {begun.get(name)} (not {key.get(name)})" for name in {**begun, **key}
            if begun.get(name) != key.get(name))
            + "; finish it with these settings, or delete this file to start again")
    network = load_attacked(data, attack.arch, attack.checkpoint)
    paths = {"images": path, "correct": path.with_name(f"{path.stem}.correct.npy")}
    with arrays.ResumableArrays(paths, len(data.train.labels), key) as attacked:
        attacked.fill(attack.name, attacked_batches(network, data, data.train, attack,
                                                    -(-attacked.rows // attack.batch_size)))
        distributed.end_others()
        before, after = (100 * attacked.arrays["correct"].mean(axis=0)).tolist()
        images: np.ndarray = attacked.arrays["images"]
        begin_files(record_path, path)
        if all_images:
            images = as_array(all_images.pixels(range(len(all_images.labels))))
            images[data.train.ids] = attacked.arrays["images"]
            write_array(path, images)
            attacked.remove()
        else:
            attacked.finish("images")
        record = {**key, "accuracy_before": before, "accuracy_after": after, "sha256": sha256(path),
                  "images_sha256": Split(images, (all_images or data.train).labels).sha256()}
        write_record(record_path, record, path)
    return record
