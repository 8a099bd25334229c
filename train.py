"""Train a network on a data set, whole or as a coreset.

    python train.py --dataset CIFAR100 --data data
    python train.py --dataset CIFAR100 --data data --prune index/CIFAR100.bin
    python train.py --dataset CIFAR100 --data data --resume      (goes on where a stopped run was)
    python train.py --dataset tiny --data data/tiny-imagenet-200 --epoch 90 --batch_size 256

Writes best.pth, last.pth, args.json and log.csv to <model_dir>/<dataset>/<arch>/; with --prune, to a folder
coreset-... below it.
"""
import argparse
import csv
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import runtime  # first: it sets what MindSpore reads when it is loaded
import mindspore as ms
import numpy as np
from mindspore import nn, ops

from datasets import SOURCES, DataSet, open_dataset
from datasets.index import read_index
from datasets.pipeline import PADDING, Batch, EvaluationBatches, TrainingBatches
from files import BadInput, load_resumable, locked, read_bytes, replacing, save_checkpoint
from models import NETWORKS, create_model, load_weights

MOMENTUM = 0.9
# args.json first: without it there is no run to resume.
RUN_FILES = ("args.json", "last.pth", "best.pth", "log.csv")
# In args.json, but free to differ in a resumed run.
PLACES = ("data", "prune", "model_dir", "resume", "versions")
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
    network.add_argument("--epoch", default=200, type=runtime.positive, help="epochs; learning rate drops "
                         "keep their share of the run")
    network.add_argument("--batch_size", default=128, type=runtime.positive, help="images a step")
    network.add_argument("--lr", default=0.1, type=float, help="learning rate at the start")
    network.add_argument("--seed", default=42, type=runtime.seed_number,
                         help="of weights, order and transforms")
    network.add_argument("--device", default="auto", choices=runtime.DEVICES,
                         help="auto: the best one present")
    output = parser.add_argument_group("output")
    output.add_argument("--model_dir", default="./ckpt", type=Path, help="folder of the runs' folders")
    output.add_argument("--eval_freq", default=1, type=runtime.positive,
                        help="epochs from one test to the next")
    output.add_argument("--save", default=True, type=runtime.boolean, metavar="True|False",
                        help="write best.pth and last.pth")
    output.add_argument("--resume", action="store_true",
                        help="go on with the run in the folder, from its last.pth")
    args = parser.parse_args(argv)
    if args.resume and not args.save:
        parser.error("--resume: a run with --save False keeps nothing to resume; leave one of the two out")
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
    images_sha256 = data.train.sha256()
    if args.prune:
        drop, manifest = read_index(args.prune, data.name, len(keep), images_sha256)
        keep = np.delete(keep, drop)
        folder /= coreset_name(args.prune, manifest, len(keep))
    print(f"{data.name}: {len(keep)} of {len(data.train.labels)} training images, {len(data.test.labels)} "
          f"test images, {len(data.classes)} classes; {args.arch} on {device}; results in {folder}",
          flush=True)
    options = {**vars(args), "device": device, "images": len(keep), "images_sha256": images_sha256,
               "kept_sha256": hashlib.sha256(keep.astype("<i8")).hexdigest(), "index": manifest,
               "versions": runtime.versions()}
    with locked(folder):
        resume = args.resume and can_resume(folder, options)
        if not resume:
            start_folder(folder, options)
        network = create_model(args.arch, len(data.classes), data.small_images)
        try:
            best = train(network, data, keep, folder, args.epoch, args.batch_size, args.lr, args.seed,
                         args.eval_freq, args.save, resume)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"the finished epochs are safe in {folder}; go on with --resume"
                                    if args.save else "nothing was saved") from None
    print(f"best test accuracy {best:.2f} %; results in {folder}")


def coreset_name(index: Path, manifest: dict, kept: int) -> str:
    """A coreset run's folder: coreset-<method>-<rate>, or coreset-<file>-<images> for a plain index."""
    if manifest:
        return f"coreset-{manifest['method']}-{manifest['rate']:g}"
    return f"coreset-{index.stem}-{kept}"


def can_resume(folder: Path, options: dict) -> bool:
    """Whether a run's folder has finished epochs of the same run.

    Raises:
        BadInput: the run in the folder has other options, images or versions of its own files than this one.
    """
    path = folder / "args.json"
    if not path.exists():
        print(f"no run to resume in {folder}: starting one")
        return False
    try:
        earlier = dict(json.loads(read_bytes(path)))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path}: not JSON; start again without --resume") from error
    for name, value in json.loads(to_json(options)).items():
        if name not in PLACES and earlier.get(name) != value:
            raise BadInput(f"--resume: {name} is {value}, but {earlier.get(name)} in {path}; "
                           "give the run's own options, or start again without --resume")
    if earlier.get("versions") != options["versions"]:
        print(f"the run was started with other versions: {earlier.get('versions')}")
    if not (folder / "last.pth").exists():
        print(f"no finished epoch in {folder}: starting again")
    return (folder / "last.pth").exists()


def start_folder(folder: Path, options: dict) -> None:
    """Move an earlier run's files to a dated folder in the run's folder and write args.json.

    Raises:
        BadInput: the folder cannot be written.
    """
    earlier = [folder / name for name in RUN_FILES if (folder / name).exists()]
    if [path.name for path in earlier] == ["args.json"]:
        earlier = []  # it was stopped before its first epoch's end
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
        temporary.write_text(to_json(options))


def to_json(options: dict) -> str:
    return json.dumps(options, indent=2, default=str) + "\n"


def train(network: nn.Cell, data: DataSet, keep: np.ndarray, folder: Path, epochs: int, batch_size: int,
          lr: float, seed: int, eval_freq: int = 1, save: bool = True, resume: bool = False) -> float:
    """Train a network with the data set's recipe on the images `keep`; return the best test accuracy, in %.

    Writes after each epoch, in this order: log.csv; with `save`, best.pth if the epoch has the best test
    accuracy so far (the paper's protocol), and last.pth. last.pth holds all that `resume` needs, so an epoch
    counts as finished once it is in place; one that is not is trained again and gives the same files.
    `eval_freq` is in epochs.

    Raises:
        BadInput: a file cannot be written, or `resume` finds files that are damaged or not of one run.
        FloatingPointError: the loss or a weight is no longer a finite number; the files of the last good
            epoch stay.
    """
    optimizer = make_optimizer(network, data.recipe.weight_decay, lr)
    train_step = make_train_step(network, optimizer, data.recipe.clip_norm)
    test_step = make_test_step(network)
    batches = TrainingBatches(data, keep, batch_size, seed)
    test_batches = EvaluationBatches(data, data.test, batch_size, data.test_transform)
    finished, best, rows = load_run(network, optimizer, folder) if resume else (0, -1.0, [])
    for epoch in range(finished, epochs):
        rate = data.recipe.learning_rate(lr, epoch, epochs)
        # assign, not set_data: a compiled step does not see new data set from outside.
        ops.assign(optimizer.learning_rate, ms.Tensor(rate, ms.float32))
        network.set_train(True)
        title = f"epoch {epoch + 1}/{epochs}"
        trained = run_batches(train_step, batches.epoch(epoch), len(batches), title)
        row = {"epoch": epoch + 1, "lr": rate, "train_loss": trained.loss, "train_acc": trained.accuracy,
               "test_loss": "", "test_acc": "", "train_seconds": trained.seconds, "test_seconds": "",
               "images_per_second": trained.images_per_second}
        check_finite(network, trained, title, rate)
        if (epoch + 1) % eval_freq == 0 or epoch + 1 == epochs:
            network.set_train(False)
            tested = run_batches(test_step, iter(test_batches), len(test_batches), "test")
            row |= {"test_loss": tested.loss, "test_acc": tested.accuracy, "test_seconds": tested.seconds}
        rows.append({name: f"{value:.6g}" if isinstance(value, float) else value
                     for name, value in row.items()})
        write_log(folder / "log.csv", rows)
        is_best = row["test_acc"] != "" and row["test_acc"] > best
        if is_best:
            best = row["test_acc"]
        if save:
            if is_best:
                save_checkpoint(network, folder / "best.pth")
            save_checkpoint(network, folder / "last.pth", run_state(optimizer, epoch + 1, best))
        print(summary(title, row), flush=True)
    return best


def run_state(optimizer: nn.SGD, finished: int, best: float) -> dict[str, ms.Tensor]:
    """What last.pth holds beside the network, by name: epochs finished, best accuracy, the optimiser's state.

    Order and transforms of an epoch follow from --seed and its number, so there is no other random state.
    """
    return {"epoch": ms.Tensor(finished, ms.int64), "best": ms.Tensor(best, ms.float64),
            **{f"optimizer.{p.name}": p.value() for p in optimizer_state(optimizer)}}


def optimizer_state(optimizer: nn.SGD) -> list[ms.Parameter]:
    """The optimiser's own parameters: momentum, step counts, learning rate."""
    trained = {parameter.name for parameter in optimizer.parameters}
    return [parameter for parameter in optimizer.get_parameters() if parameter.name not in trained]


def load_run(network: nn.Cell, optimizer: nn.SGD, folder: Path) -> tuple[int, float, list[dict]]:
    """Put last.pth into a network and its optimiser; return epochs finished, best accuracy, rows of log.csv.

    Raises:
        BadInput: a file of the run is missing, damaged, or of another run.
    """
    path = folder / "last.pth"
    weights, state = load_resumable(path)
    load_weights(network, weights, str(path), type(network).__name__)
    try:
        for parameter in optimizer_state(optimizer):
            value = state[f"optimizer.{parameter.name}"]
            if value.shape != parameter.shape:
                raise ValueError(f"{parameter.name} has another shape")
            parameter.set_data(ms.Tensor(value, parameter.dtype))
        finished, best = int(state["epoch"]), float(state["best"])
    except (KeyError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: holds no state to resume from ({error}); start again without "
                       "--resume") from error
    rows = read_log(folder / "log.csv")[:finished]
    if [row["epoch"] for row in rows] != [str(i + 1) for i in range(finished)]:
        raise BadInput(f"{folder / 'log.csv'}: has no row for each of the {finished} epochs of last.pth; "
                       "start again without --resume")
    if best >= 0 and not (folder / "best.pth").exists():
        raise BadInput(f"{folder / 'best.pth'}: missing; start again without --resume")
    print(f"resuming after epoch {finished}", flush=True)
    return finished, best, rows


def check_finite(network: nn.Cell, trained: "Progress", title: str, rate: float) -> None:
    """Raise FloatingPointError, naming step and learning rate, where training has diverged in an epoch."""
    if trained.diverged_at:
        raise FloatingPointError(f"{title}: the loss is not a finite number at step {trained.diverged_at}, "
                                 f"learning rate {rate:g}; start again with a smaller --lr")
    for name, parameter in network.parameters_and_names():
        if not np.isfinite(parameter.asnumpy()).all():
            raise FloatingPointError(f"{title}: {name} is not finite after the last step, {trained.steps}, "
                                     f"learning rate {rate:g}; start again with a smaller --lr")


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
    """The gradients times min(1, most / (norm + 1e-6)); norm: of all together (PyTorch's clip_grad_norm_)."""
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
    steps: int = 0
    diverged_at: int = 0  # the first step whose loss is not a finite number; 0: none
    seconds: float = 0.0
    untimed_seconds: float = 0.0
    untimed_images: int = 0
    pending: list = field(default_factory=list)

    def fetch(self) -> None:
        for loss, right, count in self.pending:
            value = float(loss.asnumpy())
            self.steps += 1
            if not math.isfinite(value) and not self.diverged_at:
                self.diverged_at = self.steps
            self.loss_sum += value * count
            self.right += int(right.asnumpy())
            self.images += count
        self.pending.clear()
        self.seconds = time.perf_counter() - self.started

    def describe(self) -> str:
        self.fetch()
        return f"loss {self.loss:.3f}, accuracy {self.accuracy:.2f} %, {self.images_per_second:.1f} img/s"

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


def run_batches(step: Step, batches: Iterator[Batch], steps: int, title: str) -> Progress:
    """Run a step over one pass of batches; stop where the loss is no longer a finite number."""
    progress = Progress()
    sizes = set()
    with runtime.ProgressBar(title, steps, "step") as bar:
        for _, images, labels in batches:
            before = time.perf_counter()
            count = int((labels != PADDING).sum())
            progress.pending.append((*step(ms.Tensor(images), ms.Tensor(labels)), count))
            if len(labels) not in sizes:  # in a run's first pass it compiles a graph of this batch size
                sizes.add(len(labels))
                progress.fetch()
                progress.untimed_seconds += time.perf_counter() - before
                progress.untimed_images += count
            bar.update(1, progress.describe)
            if progress.diverged_at:
                break
    progress.fetch()
    return progress


def summary(title: str, row: dict) -> str:
    text = (f"{title}: lr {row['lr']:g}, train loss {row['train_loss']:.4f}, train accuracy "
            f"{row['train_acc']:.2f} %, {row['images_per_second']:.1f} img/s")
    if row["test_acc"] != "":
        text += f", test loss {row['test_loss']:.4f}, test accuracy {row['test_acc']:.2f} %"
    return text


def read_log(path: Path) -> list[dict]:
    """The rows of a log.csv.

    Raises:
        BadInput: it is missing or no log.
    """
    rows = list(csv.DictReader(read_bytes(path).decode("ascii", "replace").splitlines()))
    if any(tuple(row) != COLUMNS for row in rows):
        raise BadInput(f"{path}: not a log of train.py; start again without --resume")
    return rows


def write_log(path: Path, rows: list[dict]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    runtime.run_script(main)
