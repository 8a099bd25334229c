"""Test a network: accuracy, the worst classes, and the classes that it confuses.

    python -m models.evaluate --ckpt ckpt/CIFAR100/resnet50/best.pth --data data

Where args.json lies beside the checkpoint, data set, classes, image size and network are those of its run.
"""
import argparse
from pathlib import Path

import mindspore as ms
import numpy as np

from datasets import SOURCES, open_dataset
from datasets.pipeline import evaluation_batches
from models import NETWORKS
from models.checkpoint import load_network
from utils import options
from utils.device import set_up
from utils.metrics import class_accuracies, confusion_matrix, mean_of_worst_tenth
from utils.runs import read_args


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser("Test a network.", prog="evaluate.py")
    parser.add_argument("--ckpt", required=True, type=Path, help="checkpoint, also by models.convert_torch")
    parser.add_argument("--arch", choices=NETWORKS, help="network (default: as in args.json beside --ckpt)")
    options.add_data_options(parser, SOURCES)
    options.add_device_option(parser)
    args = parser.parse_args(argv)
    run = read_args(args.ckpt.parent)
    for name in ("dataset", "arch", "classes", "image_size"):
        setattr(args, name, getattr(args, name) or run.get(name))
    args.data = args.data or options.DATA
    if not (args.dataset in SOURCES and args.arch in NETWORKS):
        parser.error(f"--dataset and --arch: not in args.json beside {args.ckpt}; specify both")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    set_up(args.device, options.SEED)
    data = open_dataset(args.dataset, args.data, args.image_size, args.classes, args.name)
    names, transform = np.array(data.classes), data.source.test_transform
    network = load_network(args.arch, args.ckpt, len(names), data.source.small_images)
    predict, predicted = ms.jit(network.construct), []
    for positions, images, _ in evaluation_batches(data, data.test, 64, transform, args.workers):
        predicted.append((positions, predict(ms.Tensor(images)).argmax(1)))
    confusion = confusion_matrix(predicted, data.test.labels, len(names))
    accuracies, tested = class_accuracies(confusion), names[confusion.any(axis=1)]
    print(f"{data.name}: test accuracy {100 * confusion.trace() / confusion.sum():.2f} %, of the worst class "
          f"({tested[accuracies.argmin()]}) {accuracies.min():.2f} %, mean of the worst tenth of the classes "
          f"{mean_of_worst_tenth(accuracies):.2f} %; most confused:")
    mistakes = np.triu(confusion + confusion.T, 1)
    for pair in np.argsort(-mistakes, axis=None, kind="stable")[:min(5, np.count_nonzero(mistakes))]:
        a, b = divmod(pair, len(names))
        print(f"{confusion[a, b]} {names[a]} as {names[b]}, {confusion[b, a]} {names[b]} as {names[a]}")


if __name__ == "__main__":
    options.run_script(main)
