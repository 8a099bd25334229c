"""Train a network on a data set or on a coreset of it.

    python train.py --dataset CIFAR100 --data data
    python train.py --dataset CIFAR100 --data data --prune index/CIFAR100.bin
    python train.py --dataset CIFAR100 --data data --resume      (resumes an interrupted run)
    python train.py --dataset tiny --data data/tiny-imagenet-200 --epoch 90 --batch_size 256
    python train.py --dataset folder --data PATH --epoch 90 --batch_size 256      (your own images)

Writes best.pth, last.pth, args.json, log.csv and, for the whole set, dynamics.npy to
<model_dir>/<dataset>/<arch>/; with --prune or --kept, to a folder coreset-... below it.
"""
import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from utils import runs  # first: utils sets what MindSpore reads when it is loaded

# isort: split
import mindspore as ms
import numpy as np
from mindspore import amp, nn, ops

from datasets import FOLDER, SOURCES, DataSet, open_dataset
from datasets.pipeline import PADDING, Batch, damaged_images, evaluation_batches, training_batches
from models import NETWORKS, check_image_size, create_model, smallest_map
from models.checkpoint import load_pretrained, load_run, optimizer_state, save_checkpoint, save_run
from models.layers import shift_dropout
from utils import distributed, options
from utils.device import set_up, versions
from utils.errors import BadInput
from utils.files import locked, read_json_or_nothing, sha256, write_csv
from utils.index import NAME, coreset_name, ids_sha256, read_index, read_manifest
from utils.metrics import ByImage, Metrics, class_accuracies, confusion_matrix, mean_of_worst_tenth
from utils.progress import ProgressBar

MOMENTUM = 0.9
Step = Callable[[ms.Tensor, ms.Tensor], tuple[ms.Tensor, ...]]


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser("Train a network on a data set or on a coreset of it.")
    data = parser.add_argument_group("data")
    options.add_data_options(data, SOURCES)
    data.add_argument("--check", action="store_true", help="decode every image before training starts and "
                      "list the damaged ones")
    options.add_boolean_option(data, "--skip_damaged", None, "check all images and exclude damaged ones, "
                               "which damaged.txt in the run's folder lists (default: as for the selection "
                               "of --prune or --kept)")
    coreset = data.add_mutually_exclusive_group()
    coreset.add_argument("--prune", type=Path, metavar="FILE", help="images to drop: an index, or any array "
                         "or list of ids (default: train on all images)")
    coreset.add_argument("--kept", type=Path, metavar="FILE", help="images to train on: .kept.npy or .txt "
                         "beside an index, a list of comparison.lists, or any array or list of ids")
    network = parser.add_argument_group("network and training")
    network.add_argument("--arch", choices=NETWORKS, help="network (default: that of the selection of "
                         "--prune or --kept, else resnet50)")
    network.add_argument("--pretrained", type=Path, metavar="FILE", help="start from the weights of this "
                         "checkpoint, written by train.py or models.convert_torch; a classifier for another "
                         "number of classes is not loaded (default: new weights)")
    network.add_argument("--epoch", default=200, type=options.positive, help="number of epochs; the learning "
                         "rate drops at fixed fractions of them")
    options.add_training_options(network)
    options.add_seed_option(network, "weights, order and transforms")
    options.add_device_option(network)
    output = parser.add_argument_group("output")
    output.add_argument("--model_dir", default="./ckpt", type=Path, help="folder of the runs' folders")
    output.add_argument("--eval_freq", default=1, type=options.positive, metavar="N",
                        help="evaluate every N epochs and after the last one")
    options.add_boolean_option(output, "--save", True, "write best.pth and last.pth")
    options.add_boolean_option(output, "--dynamics", True, "write dynamics.npy, which some selection methods "
                               "need, for the whole set")
    output.add_argument("--resume", action="store_true",
                        help="resume the run in the folder from its last.pth")
    args = parser.parse_args(argv)
    if args.resume and not args.save:
        parser.error("--resume: a run with --save False writes nothing to resume from; omit one of the two")
    chosen = args.prune or args.kept
    run = follow_manifest(args, chosen) if chosen and chosen.is_file() else {}
    args.dataset, args.arch = args.dataset or options.DATASET, args.arch or "resnet50"
    args.data, args.skip_damaged = args.data or options.DATA, bool(args.skip_damaged)
    args.lr = args.lr or SOURCES[args.dataset].recipe.start(args.batch_size)
    if differences := [f"--{name} {run[name]}, not {getattr(args, name)}" for name in ("batch_size", "lr")
                       if run.get(name) not in (None, getattr(args, name))]:
        options.warn(f"the run by which the images of {chosen} were selected has {' and '.join(differences)}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    device = set_up(args.device, args.seed)
    data = open_dataset(args.dataset, args.data, args.image_size, args.classes, args.name)
    check_image_size(args.arch, data.image_size)
    folder = args.model_dir / data.name / args.arch
    damaged: list[dict[int, str]] = [{}, {}]
    if args.check or args.skip_damaged:
        damaged = find_damaged(data, args.workers, args.skip_damaged)
        data = data.without(*map(list, damaged)) if any(damaged) else data
    keep, manifest = np.arange(len(data.train.labels)), None
    if chosen := args.prune or args.kept:
        keep, manifest = read_coreset(chosen, data, bool(args.kept))
        folder /= coreset_name(chosen, manifest, len(keep))
    print(f"{data.name}: {len(keep)} of {len(data.train.labels)} training images, {len(data.test.labels)} "
          f"test images, {len(data.classes)} classes; {args.arch} on {device}; results in {folder}",
          flush=True)
    network = create_model(args.arch, len(data.classes), data.source.small_images)
    if args.pretrained:
        load_pretrained(network, args.pretrained, args.arch)
    check_batch_size(network, data.image_size, len(keep), args.batch_size)
    # Where "prune" is not null, args.json is that of a coreset run.
    described = {**vars(args), "prune": chosen, "device": device, "images": len(keep),
                 "damaged": list(damaged[0]), "images_sha256": data.images_sha256,
                 "kept_sha256": ids_sha256(keep), "index": manifest, "versions": versions(),
                 "pretrained_sha256": sha256(args.pretrained) if args.pretrained else None}
    with locked(folder):
        resume = runs.open_run(folder, described, args.resume)
        if any(damaged):
            runs.write_damaged(folder, [line for half in damaged for line in half.values()])
        try:
            best = train(network, data, keep, folder, args, resume)
            if data.mislabelled is not None and (folder / "dynamics.npy").exists():
                runs.add_fitted(folder, data.mislabelled)
        except KeyboardInterrupt:
            finished = args.save and (folder / "last.pth").exists()
            raise KeyboardInterrupt(
                f"the finished epochs are safe in {folder}; resume with --resume" if finished else
                "no epoch was finished, so there is nothing to resume" if args.save else "nothing was saved"
            ) from None
    print(f"best test accuracy {best:.2f} %; results in {folder}")


def read_coreset(path: Path, data: DataSet, kept: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """The positions of the training images to keep, and the manifest; `kept`: as in read_index."""
    drop, manifest = read_index(path, data.name, data.train.ids, data.images_sha256, kept,
                                data.train.file_names)
    keep = np.flatnonzero(np.isin(data.train.ids, drop, invert=True))
    if not manifest:
        opposite = "leave out, use --prune" if kept else "keep, use --kept"
        options.warn(f"{path}: has no manifest; leaves out {len(drop):,}, trains on {len(keep):,}; if these "
                     f"are the images to {opposite}")
    images = np.bincount(data.train.labels[keep], minlength=len(data.classes))
    if empty := [data.classes[i] for i in np.flatnonzero(images == 0)]:
        options.warn(f"{len(empty)} of {len(images)} classes have no training image: "
                     f"{', '.join(empty[:5])}{', ...' * (len(empty) > 5)}")
    return keep, manifest


def check_batch_size(network: nn.Cell, side: int, n: int, batch_size: int) -> None:
    """Raise BadInput if batch normalization would get a single value, a map of one pixel of one image."""
    batches, devices = {min(batch_size, n), n % batch_size} - {0}, distributed.size()
    if (any(1 in (images // devices, math.ceil(images / devices)) for images in batches)
            and smallest_map(network, side) == 1):
        raise BadInput(f"--batch_size {batch_size}: a device gets a batch of one of the {n} images, whose "
                       "smallest feature map has one pixel, which cannot be normalized; choose another "
                       "--batch_size or a larger --image_size")


def find_damaged(data: DataSet, workers: int | None, skip: bool) -> list[dict[int, str]]:
    """Warn of damaged training and test images and return the warnings by position; BadInput if not `skip`.
    """
    damaged = []
    for split, name in ((data.train, "training"), (data.test, "test")):
        damaged.append(damaged_images(split, workers))
        for warning in damaged[-1].values():
            options.warn(warning)
        if len(damaged[-1]) == len(split.labels):
            raise BadInput(f"all {name} images are damaged; replace them with intact copies")
    if any(damaged) and not skip:
        raise BadInput(f"{sum(map(len, damaged))} images are damaged; replace them with intact copies, or "
                       "exclude them with --skip_damaged True")
    return damaged


def follow_manifest(args: argparse.Namespace, chosen: Path) -> dict[str, Any]:
    """Set the options that were not passed as in the selection; return those of the run that it used.

    These are data set, name, network, image size, classes and --skip_damaged. {}: the run is not known.
    """
    manifest, run = read_manifest(chosen), dict[str, Any]()
    if manifest.get("checkpoint"):
        run = read_json_or_nothing(Path(manifest["checkpoint"]).parent / "args.json")
    dataset = manifest.get("dataset") or ""
    if dataset in SOURCES:
        args.dataset = args.dataset or dataset
    elif args.dataset in (None, FOLDER) and "images_sha256" in manifest and NAME.fullmatch(dataset):
        args.dataset, args.name = FOLDER, args.name or dataset
    if dataset != (args.name or args.dataset):
        return {}  # read_index will say what is wrong
    for name in ("arch", "image_size", "classes"):
        given, selected_with = getattr(args, name), manifest.get(name)
        if given is None:
            setattr(args, name, selected_with)
        elif selected_with not in (None, given):
            print(f"--{name} {given}: the images of {chosen} were selected with {selected_with}")
    if not args.data and run.get("dataset") == args.dataset and Path(run.get("data", "")).exists():
        args.data = Path(run["data"])
        print(f"--data {args.data}, as in the training run used for the selection")
    if args.skip_damaged is None:
        args.skip_damaged = bool(manifest.get("damaged", run.get("damaged")))
    return run


def train(network: nn.Cell, data: DataSet, keep: np.ndarray, folder: Path, args: argparse.Namespace,
          resume: bool = False) -> float:
    """Train a network with the data set's recipe on the images `keep`; return the best test accuracy, in %.

    Writes after each epoch, in this order: log.csv; for the whole set, dynamics.npy; best.pth if the epoch
    has the best test accuracy so far (the paper's protocol); and last.pth, from which runs are resumed. An
    epoch whose last.pth was not written is trained again and gives the same files.

    Raises:
        FloatingPointError: the loss or a weight is not a finite number; the files of the last epoch are kept.
    """
    recipe, epochs = data.source.recipe, args.epoch
    optimizer = make_optimizer(network, recipe.weight_decay, args.lr)
    # Weights, and so checkpoints, logits and dynamics, are float32 at each level of mixed precision.
    loss_scale = None if args.amp_level == "O0" else LossScale()
    state = optimizer_state(optimizer) + (loss_scale.parameters() if loss_scale else [])
    finished, best = load_run(folder / "last.pth", network, state) if resume else (0, -1.0)
    rows = runs.read_log(folder, finished, best >= 0) if resume else []
    shift_dropout(network, distributed.rank())
    mixed = amp.auto_mixed_precision(network, args.amp_level)  # of the same parameters
    record = None
    if args.dynamics and not (args.prune or args.kept):
        record = runs.Dynamics(folder / "dynamics.npy", epochs, len(data.train.labels), resume)
    train_step = make_train_step(mixed, optimizer, recipe.clip_norm, record is not None, loss_scale)
    test_step = make_test_step(mixed)
    for epoch in range(finished, epochs):
        rate, title = recipe.learning_rate(args.lr, epoch, epochs), f"epoch {epoch + 1}/{epochs}"
        # assign, not set_data: a compiled step does not see values changed by set_data.
        ops.assign(optimizer.learning_rate, ms.Tensor(rate, ms.float32))
        row: dict[str, Any] = {"epoch": epoch + 1, "lr": rate}
        try:
            row |= train_epoch(network, train_step, data, keep, args, epoch, record)
            if (epoch + 1) % args.eval_freq == 0 or epoch + 1 == epochs:
                row |= evaluate(network, test_step, data, args)
        except FloatingPointError as error:
            raise FloatingPointError(f"{title}: {error}, learning rate {rate:g}; start again with a smaller "
                                     "--lr") from None
        rows.append(row)
        write_csv(folder / "log.csv", rows, runs.COLUMNS)
        if record:
            record.write_epoch(epoch)
        if row.get("test_acc", -1.0) > best:
            best = row["test_acc"]
            if args.save:
                save_checkpoint(network, folder / "best.pth")
        if args.save:
            save_run(folder / "last.pth", network, state, epoch + 1, best)
        print(f"{title}: {describe(row)}{f', {loss_scale.describe()}' if loss_scale else ''}", flush=True)
    return best


def train_epoch(network: nn.Cell, step: Step, data: DataSet, keep: np.ndarray, args: argparse.Namespace,
                epoch: int, record: runs.Dynamics | None) -> dict[str, float]:
    """Train for one epoch, numbered from 0, on the images `keep`; return its columns of log.csv."""
    network.set_train(True)
    batches = training_batches(data, keep, args.batch_size, args.seed, epoch, args.workers,
                               (distributed.rank(), distributed.size()))
    metrics = run_batches(step, batches, math.ceil(len(keep) / args.batch_size),
                          f"epoch {epoch + 1}/{args.epoch}", record.pending if record else None)
    if metrics.diverged_at:
        raise FloatingPointError(f"the loss is not a finite number at step {metrics.diverged_at}")
    for name, parameter in network.parameters_and_names():
        if not np.isfinite(parameter.asnumpy()).all():
            raise FloatingPointError(f"{name} is not finite after the last step, {metrics.steps}")
    distributed.broadcast_running_statistics(network)
    return {"train_loss": metrics.loss, "train_acc": metrics.accuracy, "train_seconds": metrics.seconds,
            "images_per_second": metrics.images_per_second}


def evaluate(network: nn.Cell, step: Step, data: DataSet, args: argparse.Namespace) -> dict[str, float]:
    """Evaluate a network on the test images; return the columns of log.csv."""
    network.set_train(False)
    labels, predicted = data.test.labels, ByImage()
    batch_size = min(math.ceil(args.batch_size / distributed.size()), len(labels))
    batches = evaluation_batches(data, data.test, batch_size, data.source.test_transform, args.workers,
                                 (distributed.rank(), distributed.size()))
    metrics = run_batches(step, batches, math.ceil(len(labels) / (batch_size * distributed.size())), "test",
                          predicted)
    if metrics.diverged_at:
        raise FloatingPointError("the test loss is not a finite number")
    by_class = class_accuracies(confusion_matrix(predicted, labels, len(data.classes)))
    return {"test_loss": metrics.loss, "test_acc": metrics.accuracy,
            "test_worst_class_acc": float(by_class.min()),
            "test_worst_tenth_acc": mean_of_worst_tenth(by_class), "test_seconds": metrics.seconds}


def describe(row: dict[str, Any]) -> str:
    """An epoch's row of log.csv in words."""
    text = (f"lr {row['lr']:g}, train loss {row['train_loss']:.4f}, train accuracy {row['train_acc']:.2f} %, "
            f"{row['images_per_second']:.1f} img/s")
    if "test_acc" in row:
        text += (f", test loss {row['test_loss']:.4f}, test accuracy {row['test_acc']:.2f} %, worst "
                 f"class {row['test_worst_class_acc']:.2f} %")
    return text


def make_optimizer(network: nn.Cell, weight_decay: float, lr: float) -> nn.SGD:
    """SGD with momentum; weight decay on every parameter, which MindSpore does only for an explicit group."""
    groups = [{"params": network.trainable_params(), "weight_decay": weight_decay}]
    return nn.SGD(groups, learning_rate=lr, momentum=MOMENTUM)


class LossScale(amp.DynamicLossScaler):
    """The factor that keeps small gradients above the smallest float16 number.

    It is doubled after 2,000 steps without overflow. A step with overflow halves it and is skipped.
    """

    def __init__(self, scale: float = 1024) -> None:
        super().__init__(scale, scale_factor=2, scale_window=2000)
        self.skipped = ms.Parameter(ms.Tensor(0, ms.int32), name="skipped")

    def parameters(self) -> list[ms.Parameter]:
        """The state that a resumed run needs."""
        return [self.scale_value, self.counter, self.skipped]

    def describe(self) -> str:
        """The state in words, for the line of an epoch."""
        return f"loss scale {float(self.scale_value):g}, {int(self.skipped)} steps skipped so far"


def make_train_step(network: nn.Cell, optimizer: nn.SGD, clip_norm: float | None = None,
                    dynamics: bool = False, loss_scale: LossScale | None = None) -> Step:
    """A compiled step: images (b, 3, h, w) and labels (b,) to mean loss and number of correct predictions.

    Args:
        clip_norm: largest global gradient norm; None: gradients are not clipped.
        dynamics: return also what utils.runs.Dynamics records for each image, (3, b).
        loss_scale: None: the loss is not scaled, and no step is skipped.
    """
    loss_function, sum_over_ranks = nn.CrossEntropyLoss(), None
    if distributed.size() > 1:  # each rank has sums over its shard, which these add up over the batch
        loss_function = nn.CrossEntropyLoss(ignore_index=PADDING, reduction="sum")
        sum_over_ranks = ops.AllReduce()
        sum_gradients_over_ranks = nn.DistributedGradReducer(optimizer.parameters, mean=False)

    def forward(images: ms.Tensor, labels: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        logits = network(images)
        loss = loss_function(logits, labels)
        return loss if loss_scale is None else loss_scale.scale(loss), loss, logits

    gradient = ms.value_and_grad(forward, None, optimizer.parameters, has_aux=True)

    @ms.jit
    def step(images: ms.Tensor, labels: ms.Tensor) -> tuple[ms.Tensor, ...]:
        (_, loss, logits), gradients = gradient(images, labels)
        if sum_over_ranks is not None:
            sums = sum_over_ranks(ops.stack((loss, (labels != PADDING).astype(ms.float32).sum())))
            loss = sums[0] / sums[1]
            gradients = sum_gradients_over_ranks(scale_gradients(gradients, 1 / sums[1]))
        finite = True
        if loss_scale is not None:  # after the sum over ranks, so that an overflow reaches all
            gradients = loss_scale.unscale(gradients)
            finite = amp.all_finite(gradients)
            loss_scale.adjust(finite)
            ops.assign_add(loss_scale.skipped, 1 - finite.astype(ms.int32))
        if clip_norm is not None:
            gradients = clip_gradients(gradients, clip_norm)
        if finite:
            optimizer(gradients)
        correct = (ops.argmax(logits, 1).astype(ms.int32) == labels).astype(ms.int32).sum()
        if dynamics:
            return loss, correct, image_dynamics(logits, labels)
        return loss, correct

    return step


def clip_gradients(gradients: tuple[ms.Tensor, ...], most: float) -> tuple[ms.Tensor, ...]:
    """The gradients times min(1, most / (global gradient norm + 1e-6)), as PyTorch's clip_grad_norm_."""
    norm = ops.sqrt(ops.addn(ops.HyperMap()(square_sum, gradients)))
    return scale_gradients(gradients, ops.minimum(most / (norm + 1e-6), ms.Tensor(1, ms.float32)))


def scale_gradients(gradients: tuple[ms.Tensor, ...], scale: ms.Tensor) -> tuple[ms.Tensor, ...]:
    return ops.HyperMap()(ops.partial(ops.mul, scale), gradients)


def square_sum(x: ms.Tensor) -> ms.Tensor:
    return ops.square(x).sum()


def image_dynamics(logits: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
    """For each image p_y, p_y less the highest other probability, and the norm of p - y, (3, b)."""
    p = ops.softmax(logits, 1)
    y = ops.one_hot(labels, logits.shape[1], ms.Tensor(1, ms.float32), ms.Tensor(0, ms.float32))
    of_label = (p * y).sum(1)
    return ops.stack((of_label, of_label - (p - 2 * y).max(1), ops.sqrt(ops.square(p - y).sum(1))))


def make_test_step(network: nn.Cell) -> Step:
    """A compiled step: images and labels to mean loss, number of correct predictions, predicted classes."""
    loss_function = nn.CrossEntropyLoss(ignore_index=PADDING)

    @ms.jit
    def step(images: ms.Tensor, labels: ms.Tensor) -> tuple[ms.Tensor, ...]:
        logits = network(images)
        predicted = ops.argmax(logits, 1).astype(ms.int32)
        return loss_function(logits, labels), (predicted == labels).astype(ms.int32).sum(), predicted

    return step


def run_batches(step: Step, batches: Iterator[Batch], steps: int, title: str,
                by_image: ByImage | None = None) -> Metrics:
    """Run a step on all batches, or until the loss is not finite; return metrics over all ranks.

    `by_image` receives the positions of each batch and what the step returns for each image.
    """
    metrics = Metrics()
    sizes = set()
    with ProgressBar(title, steps, "step", state=metrics.describe) as bar:
        for positions, images, labels in batches:
            before = time.perf_counter()
            count = int((labels != PADDING).sum())
            loss, correct, *numbers = step(ms.Tensor(images), ms.Tensor(labels))
            metrics.pending.append((loss, correct, count))
            if by_image is not None:
                by_image.append((positions, *numbers))
            if len(labels) not in sizes:  # the first step of this batch size compiles its graph
                sizes.add(len(labels))
                metrics.fetch()
                metrics.untimed_seconds += time.perf_counter() - before
                metrics.untimed_images += count
            bar.update()
            if metrics.diverged_at and distributed.size() == 1:  # else the others would wait for this rank
                break
    metrics.fetch()
    metrics.over_ranks()
    return metrics


if __name__ == "__main__":
    options.run_script(main)
