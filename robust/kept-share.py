"""Which fraction of each method's coreset is mislabelled or corrupted, in Markdown.

    python robust/kept-share.py --dataset CIFAR100N --ckpt ckpt/CIFAR100N/resnet50/best.pth

Features and logits are those that selection.py keeps beside the checkpoint (or computed, where missing),
training dynamics those beside it. Which images were perturbed stands beside the files of the script of
robust/ that made the data set.
"""
from dataclasses import dataclass
from pathlib import Path

import project  # first: it finds the project's own modules
import numpy as np

from datasets import open_dataset
from datasets.scenes import CORRUPT
from methods import METHODS
from methods.choice import number_to_keep
from methods.evidence import features_and_logits, read_dynamics
from models import NETWORKS
from models.checkpoint import find_arch
from robust.corruptions import CLEAN
from robust.options import make_parser
from utils.arrays import read_array
from utils.device import random_stream, set_up
from utils.files import BadInput, locked, read_json
from utils.options import add_device_option, fraction, positive, run_script
from utils.runs import read_args


@dataclass(frozen=True)
class Marks:
    """Where it stands which images of a data set were perturbed.

    Args:
        word: what these images are.
        script: made the files.
        record: its settings.
        array: .npy file with a mark an image; None: the settings hold the kinds.
    """
    word: str
    script: str
    record: str
    array: str | None = None

    def read(self, data: Path) -> tuple[np.ndarray, dict]:
        """Which images were perturbed, bool (n,), and the settings.

        Raises:
            BadInput: files are missing or do not hold that.
        """
        record = read_json(data / self.record, f"make it again with robust/{self.script}")
        if not record:
            raise BadInput(f"{data / self.record}: missing; make it with robust/{self.script}")
        if self.array:
            marks = read_array(data / self.array, f"make it with robust/{self.script}")
        else:
            kinds = record.get("kinds")
            marks = np.array(list(kinds.values()) if isinstance(kinds, dict) else [], str)
        if marks.ndim != 1 or marks.dtype.kind not in "bU" or len(marks) != record.get("images"):
            raise BadInput(f"{data / (self.array or self.record)}: not a mark for each of "
                           f"{record.get('images')} images; make it again with robust/{self.script}")
        return np.array(marks if marks.dtype.kind == "b" else marks != CLEAN), record


MARKS = {
    "CIFAR100N": Marks("mislabelled", "noisy-cifar.py", "noisy/cifar.json", "noisy/cifar_changed.npy"),
    "CIFAR100C": Marks("corrupted", "corrupt-cifar.py", f"{CORRUPT}/corrupt.json", f"{CORRUPT}/kinds.npy"),
    "tinyN": Marks("mislabelled", "noisy-tiny.py", "noisy/tiny.json", "noisy/tiny_changed.npy"),
    "tinyC": Marks("corrupted", "corrupt-tiny.py", "tiny-imagenet-200-corrupt/corrupt.json"),
}
RATES = (0.2, 0.4, 0.6)


def main() -> None:
    parser = make_parser("Which fraction of each method's coreset is mislabelled or corrupted.")
    parser.add_argument("--dataset", default="CIFAR100N", choices=MARKS, help="data set of the selection")
    parser.add_argument("--ckpt", required=True, type=Path, help="checkpoint of a network trained on it")
    parser.add_argument("--arch", choices=NETWORKS, help="network of --ckpt; None: as args.json says")
    parser.add_argument("--image_size", type=positive, help="side of the images; None: as args.json says")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD",
                        help="rows of the table")
    parser.add_argument("--rates", default=RATES, type=fraction, nargs="+",
                        help="fractions of the images to keep")
    parser.add_argument("--save", default=project.ROOT / "index", type=Path,
                        help="folder for the features where that of --ckpt cannot be written to")
    add_device_option(parser)
    args = parser.parse_args()
    set_up(args.device, args.seed)
    perturbed, record = MARKS[args.dataset].read(args.data)
    folder = args.data / "tiny-imagenet-200-corrupt" if args.dataset == "tinyC" else args.data
    folder = args.data / "tiny-imagenet-200" if args.dataset == "tinyN" else folder
    of_run = read_args(args.ckpt.parent)
    data = open_dataset(args.dataset, folder, args.image_size or of_run.get("image_size"),
                        of_run.get("classes"))
    if data.images_sha256 != record.get("images_sha256"):
        raise BadInput(f"{args.data / MARKS[args.dataset].record}: of other images or labels than {folder} "
                       f"holds; make them again with robust/{MARKS[args.dataset].script}")
    perturbed = perturbed[data.train.ids]
    with locked(args.save):
        evidence = features_and_logits(data, find_arch(args.arch, args.ckpt), args.ckpt, args.save)
    if any("dynamics" in METHODS[name].needs for name in args.methods):
        evidence["dynamics"] = read_dynamics(args.ckpt.parent / "dynamics.npy", args.ckpt, data)
    table = {name: [perturbed_fraction(name, data.train.labels, evidence, perturbed, rate, args.seed)
                    for rate in args.rates] for name in args.methods}
    word = MARKS[args.dataset].word
    print(f"Of each coreset of {args.dataset} the fraction that is {word}; of all {len(perturbed)} images "
          f"{100 * perturbed.mean():.1f} %\n")
    print("| method | " + " | ".join(f"keep {100 * rate:g} %" for rate in args.rates) + " |")
    print("|---|" + "---|" * len(args.rates))
    for name, cells in table.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def perturbed_fraction(name: str, labels: np.ndarray, evidence: dict[str, np.ndarray], perturbed: np.ndarray,
                       rate: float, seed: int) -> str:
    """The fraction of a method's coreset that is perturbed, in percent; "-" where it keeps none.

    Args:
        evidence: features, logits and dynamics, as far as the method needs them.
        perturbed: which images are, bool (n,).
        rate: fraction of the images to keep.
    """
    method, number = METHODS[name], number_to_keep(len(labels), rate)
    if not number:
        return "-"
    try:
        choice = method.choose(labels, number, random_stream(seed, name),
                               **{need: evidence[need] for need in method.needs})
    except BadInput:
        return "-"
    return f"{100 * perturbed[choice.kept].mean():.1f} %"


if __name__ == "__main__":
    run_script(main)
