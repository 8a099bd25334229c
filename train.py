"""Train a network on a data set, whole or as a coreset.

    python train.py --dataset CIFAR100 --data data
    python train.py --dataset CIFAR100 --data data --prune index/CIFAR100.bin
    python train.py --dataset tiny --data data/tiny-imagenet-200 --epoch 90 --batch_size 256

Writes best.pth, last.pth, args.json and log.csv to <model_dir>/<dataset>/<arch>/; with --prune, to a folder
coreset-... below it.
"""
import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import runtime  # first: it sets what MindSpore reads when it is loaded
import mindspore as ms
import numpy as np
from mindspore import nn, ops
from tqdm import tqdm

from datasets import SOURCES, DataSet, open_dataset
from datasets.index import read_index
from datasets.pipeline import PADDING, EvaluationBatches, TrainingBatches
from files import BadInput, make_folder, replacing, save_checkpoint
from models import NETWORKS, create_model

MOMENTUM = 0.9
RUN_FILES = ("best.pth", "last.pth", "args.json", "log.csv")
COLUMNS = ("epoch", "lr", "train_loss", "train_acc", "test_loss", "test_acc", "train_seconds", "test_seconds",
           "images_per_second")
Step = Callable[[ms.Tensor, ms.Tensor], tuple[ms.Tensor, ms.Tensor]]


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = runtime.Parser(description="Train a network on a data set, whole or as a coreset.",
                            formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", default="CIFAR100", choices=SOURCES, help="data set")
    data.add_argument("--data", default="data", type=Path, help="folder that holds the data set's own "
                      "folder; for tiny, that folder itself")
    data.add_argument("--prune", type=Path, help="index file of ids to leave out; None: train on all images")
    network = parser.add_argument_group("network and training")
    network.add_argument("--arch", default="resnet50", choices=NETWORKS, help="network")
    network.add_argument("--epoch", default=200, type=runtime.positive, help="epochs; learning rate drops keep "
                         "their share of the run")
    network.add_argument("--batch_size", default=128, type=runtime.positive, help="images a step")
    network.add_argument("--lr", default=0.1, type=float, help="learning rate at the start")
    network.add_argument("--seed", default=42, type=runtime.seed_number, help="of weights, order and transforms")
    network.add_argument("--device", default="auto", choices=runtime.DEVICES, help="auto: the best one present")
    output = parser.add_argument_group("output")
    output.add_argument("--model_dir", default="./ckpt", type=Path, help="folder of the runs' folders")
    output.add_argument("--eval_freq", default=1, type=runtime.positive, help="epochs from one test to the next")
    output.add_argument("--save", default=True, type=runtime.boolean, metavar="True|False",
                        help="write best.pth and last.pth")
    args = parser.parse_args(argv)
    if not (math.isfinite(args.lr) and args.lr > 0):
        parser.error(f"--lr {args.lr}: must be a number above 0")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    device = runtime.set_up(args.device, args.seed)
    data = open_dataset(args.dataset, args.data)
    folder = args.model_dir / args.dataset / args.arch
    keep = np.arange(len(data.train.labels))
    manifest = None
    if args.prune:
        drop, manifest = read_index(args.prune, data.name, len(keep))
        keep = np.delete(keep, drop)
        folder /= coreset_name(args.prune, manifest, len(keep))
    print(f"{data.name}: {len(keep)} of {len(data.train.labels)} training images, {len(data.test.labels)} test "
          f"images, {len(data.classes)} classes; {args.arch} on {device}; results in {folder}", flush=True)
    start_folder(folder, {**vars(args), "device": device, "images": len(keep), "index": manifest})
    network = create_model(args.arch, len(data.classes), data.small_images)
    best = train(network, data, keep, folder, args.epoch, args.batch_size, args.lr, args.seed, args.eval_freq,
                 args.save)
    print(f"best test accuracy {best:.2f} %; results in {folder}")


def coreset_name(index: Path, manifest: dict, kept: int) -> str:
    """Name of a coreset run's folder: coreset-<method>-<rate>, or coreset-<file>-<images> for a plain index."""
    if manifest:
        return f"coreset-{manifest['method']}-{manifest['rate']:g}"
    return f"coreset-{index.stem}-{kept}"


def start_folder(folder: Path, options: dict) -> None:
    """Make a run's folder, move an earlier run's files to a dated folder in it, write args.json.

    Raises:
        BadInput: the folder cannot be written.
    """
    make_folder(folder)
    earlier = [folder / name for name in RUN_FILES if (folder / name).exists()]
    if earlier:
        dated = folder / time.strftime("earlier-%Y%m%d-%H%M%S")
        while dated.exists():
            dated = dated.with_name(dated.name + "x")
        try:
            dated.mkdir()
            for path in earlier:
                path.rename(dated / path.name)
        except OSError as error:
            raise BadInput(f"{folder}: an earlier run cannot be moved ({error.strerror}); "
                           "name another --model_dir") from error
        print(f"moved the files of an earlier run to {dated}")
    with replacing(folder / "args.json") as temporary:
        temporary.write_text(json.dumps({**options, "versions": runtime.versions()}, indent=2, default=str) + "\n")


def train(network: nn.Cell, data: DataSet, keep: np.ndarray, folder: Path, epochs: int, batch_size: int, lr: float,
          seed: int, eval_freq: int = 1, save: bool = True) -> float:
    """Train a network with the data set's recipe on the images `keep`; return the best test accuracy in percent.

    Writes log.csv to `folder` after each epoch and, with `save`, last.pth, and best.pth after each epoch that has the
    best test accuracy so far (the paper's protocol). `eval_freq` is in epochs.

    Raises:
        FloatingPointError: the loss is no longer a finite number; the files of the last good epoch stay.
    """
    optimizer = make_optimizer(network, data.recipe.weight_decay, lr)
    train_step = make_train_step(network, optimizer, data.recipe.clip_norm)
    test_step = make_test_step(network)
    batches = TrainingBatches(data, keep, batch_size, seed)
    test_batches = EvaluationBatches(data, data.test, batch_size, data.test_transform)
    best, rows = -1.0, []
    for epoch in range(epochs):
        rate = data.recipe.learning_rate(lr, epoch, epochs)
        # assign, not set_data: a compiled step does not see new data set from outside.
        ops.assign(optimizer.learning_rate, ms.Tensor(rate, ms.float32))
        network.set_train(True)
        title = f"epoch {epoch + 1}/{epochs}"
        trained = run_batches(train_step, batches.epoch(epoch), len(batches), title)
        if not math.isfinite(trained.loss):
            raise FloatingPointError(f"{title}: the training loss is {trained.loss} at learning rate {rate:g}; "
                                     "start again with a smaller --lr")
        row = {"epoch": epoch + 1, "lr": rate, "train_loss": trained.loss, "train_acc": trained.accuracy,
               "test_loss": "", "test_acc": "", "train_seconds": trained.seconds, "test_seconds": "",
               "images_per_second": trained.images_per_second}
        if (epoch + 1) % eval_freq == 0 or epoch + 1 == epochs:
            network.set_train(False)
            tested = run_batches(test_step, iter(test_batches), len(test_batches), "test")
            row |= {"test_loss": tested.loss, "test_acc": tested.accuracy, "test_seconds": tested.seconds}
        rows.append({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
        write_log(folder / "log.csv", rows)
        if save:
            save_checkpoint(network, folder / "last.pth")
        if row["test_acc"] != "" and row["test_acc"] > best:
            best = row["test_acc"]
            if save:
                save_checkpoint(network, folder / "best.pth")
        print(summary(title, row), flush=True)
    return best


def make_optimizer(network: nn.Cell, weight_decay: float, lr: float) -> nn.SGD:
    """SGD with momentum; weight decay on every parameter, which MindSpore does only for an explicit group."""
    groups = [{"params": network.trainable_params(), "weight_decay": weight_decay}]
    return nn.SGD(groups, learning_rate=lr, momentum=MOMENTUM)


def make_train_step(network: nn.Cell, optimizer: nn.SGD, clip_norm: float | None = None) -> Step:
    """A compiled step: images (n, 3, h, w) and labels (n,) to mean loss and number of right answers.

    Args:
        clip_norm: the most that the norm of all gradients together may be; None: they are not clipped.
    """
    loss_function = nn.CrossEntropyLoss()

    def forward(images: ms.Tensor, labels: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        logits = network(images)
        return loss_function(logits, labels), logits

    gradient = ms.value_and_grad(forward, None, optimizer.parameters, has_aux=True)

    @ms.jit
    def step(images: ms.Tensor, labels: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        (loss, logits), gradients = gradient(images, labels)
        if clip_norm is not None:
            gradients = clip_gradients(gradients, clip_norm)
        optimizer(gradients)
        return loss, count_right(logits, labels)

    return step


def clip_gradients(gradients: tuple[ms.Tensor, ...], most: float) -> tuple[ms.Tensor, ...]:
    """The gradients times min(1, most / (norm + 1e-6)), norm that of all together (PyTorch's clip_grad_norm_)."""
    norm = ops.sqrt(ops.addn(ops.HyperMap()(square_sum, gradients)))
    scale = ops.minimum(most / (norm + 1e-6), ms.Tensor(1, ms.float32))
    return ops.HyperMap()(ops.partial(ops.mul, scale), gradients)


def square_sum(x: ms.Tensor) -> ms.Tensor:
    return ops.square(x).sum()


def make_test_step(network: nn.Cell) -> Step:
    """A compiled evaluation: images and labels (-1: not counted) to mean loss and number of right answers."""
    loss_function = nn.CrossEntropyLoss(ignore_index=PADDING)

    @ms.jit
    def step(images: ms.Tensor, labels: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        logits = network(images)
        return loss_function(logits, labels), count_right(logits, labels)

    return step


def count_right(logits: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
    return (ops.argmax(logits, 1).astype(ms.int32) == labels).astype(ms.int32).sum()


@dataclass
class Progress:
    """What a pass over the batches has come to so far.

    Losses and counts stay on the device until they are shown: fetching one waits for its step.
    """
    started: float = field(default_factory=time.perf_counter)
    images: int = 0
    loss_sum: float = 0.0
    right: int = 0
    seconds: float = 0.0
    untimed_seconds: float = 0.0
    untimed_images: int = 0
    pending: list = field(default_factory=list)

    def fetch(self) -> None:
        for loss, right, count in self.pending:
            self.loss_sum += float(loss.asnumpy()) * count
            self.right += int(right.asnumpy())
            self.images += count
        self.pending.clear()
        self.seconds = time.perf_counter() - self.started

    @property
    def loss(self) -> float:
        return self.loss_sum / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        return 100 * self.right / max(self.images, 1)

    @property
    def images_per_second(self) -> float:
        """Without the first step of each batch size, which may compile, unless there were no others."""
        if self.images > self.untimed_images:
            return (self.images - self.untimed_images) / (self.seconds - self.untimed_seconds)
        return self.images / max(self.seconds, 1e-9)


def run_batches(step: Step, batches: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]], steps: int,
                title: str) -> Progress:
    """Run a step over one pass of batches, with a bar on a terminal, else a line a minute."""
    progress = Progress()
    terminal = sys.stderr.isatty()
    shown = time.perf_counter()
    sizes = set()
    with tqdm(total=steps, desc=title, unit="step", leave=False, disable=not terminal) as bar:
        for number, (_, images, labels) in enumerate(batches, 1):
            before = time.perf_counter()
            count = int((labels != PADDING).sum())
            loss, right = step(ms.Tensor(images), ms.Tensor(labels))
            progress.pending.append((loss, right, count))
            if len(labels) not in sizes:  # in a run's first pass it compiles a graph of this batch size
                sizes.add(len(labels))
                progress.fetch()
                progress.untimed_seconds += time.perf_counter() - before
                progress.untimed_images += count
            bar.update()
            if time.perf_counter() - shown > (1 if terminal else 60):
                shown = time.perf_counter()
                progress.fetch()
                state = (f"loss {progress.loss:.3f}, accuracy {progress.accuracy:.2f} %, "
                         f"{progress.images_per_second:.1f} img/s")
                bar.set_postfix_str(state)
                if not terminal:
                    left = (shown - progress.started) / number * (steps - number)
                    print(f"{title}: step {number}/{steps}, {state}, {left:.0f} s left", flush=True)
    progress.fetch()
    return progress


def summary(title: str, row: dict) -> str:
    text = (f"{title}: lr {row['lr']:g}, train loss {row['train_loss']:.4f}, train accuracy {row['train_acc']:.2f} %, "
            f"{row['images_per_second']:.1f} img/s")
    if row["test_acc"] != "":
        text += f", test loss {row['test_loss']:.4f}, test accuracy {row['test_acc']:.2f} %"
    return text


def write_log(path: Path, rows: list[dict]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    runtime.run_script(main)
