"""Which share of mislabelled or corrupted images each selection keeps, from saved files, in Markdown.

    python selection.py --dataset CIFAR100N --ckpt ckpt/CIFAR100N/resnet50/best.pth --rate 0.2
    python robust/kept-share.py --dataset CIFAR100N

Reads index/<dataset>.distances.npz, which selection.py wrote, and the marks and settings that the script
which perturbed the data set wrote beside its files.
"""
import json
import os
from dataclasses import dataclass
from pathlib import Path

import project  # first: it finds the project's own modules
import numpy as np

import runtime
from datasets.scenes import CORRUPT, read_array
from files import BadInput
from robust import options
from robust.corruptions import CLEAN
from robust.results import read_record
from selection import ids_to_drop, random_order


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
        record = read_record(data / self.record, f"make it again with robust/{self.script}")
        if not record:
            raise BadInput(f"{data / self.record}: missing; make it with robust/{self.script}")
        if self.array:
            marks = read_array(data / self.array, f"robust/{self.script}")
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
    parser = options.make_parser("What share of the mislabelled or corrupted images each selection keeps.")
    parser.add_argument("--dataset", default="CIFAR100N", choices=MARKS, help="data set of the selection")
    parser.add_argument("--index", default=project.ROOT / "index", type=Path,
                        help="folder that selection.py wrote to")
    parser.add_argument("--rates", default=RATES, type=options.share, nargs="+",
                        help="shares of the images to keep")
    args = parser.parse_args()
    marks = MARKS[args.dataset]
    perturbed, record = marks.read(args.data)
    distances = read_distances(args.index / f"{args.dataset}.distances.npz", args.dataset, record)
    print(f"Share of the {perturbed.sum()} {marks.word} images among {args.dataset}'s {len(perturbed)} that "
          "each selection keeps\n")
    print("| images kept | " + " | ".join(f"{100 * rate:g} %" for rate in args.rates) + " |")
    print("|---|" + "---|" * len(args.rates))
    columns = [kept_shares(distances, perturbed, rate, args.seed) for rate in args.rates]
    for method in columns[0]:
        print(f"| {method} | " + " | ".join(f"{100 * column[method]:.1f} %" for column in columns) + " |")


def kept_shares(distances: np.ndarray, perturbed: np.ndarray, rate: float, seed: int) -> dict[str, float]:
    """By selection, the share of the perturbed images that it keeps.

    Args:
        distances: of each image to its class centre, (n,).
        perturbed: which images are, bool (n,).
        rate: share of the images to keep.
        seed: of the random selection, as of `selection.py --method random`.
    """
    order, ids = np.argsort(distances, kind="stable"), np.arange(len(distances))
    kept = {"moderate": np.delete(ids, ids_to_drop(order, rate)),
            "random": np.delete(ids, ids_to_drop(random_order(len(ids), seed), rate))}
    kept["nearest to the centre"] = order[:len(kept["moderate"])]
    return {name: perturbed[chosen].sum() / max(perturbed.sum(), 1) for name, chosen in kept.items()}


def read_distances(path: Path, dataset: str, record: dict) -> np.ndarray:
    """The distances of a data set's images to their class centres, float (n,).

    Raises:
        BadInput: the file is missing, damaged, or of other images than the settings in `record` belong to.
    """
    remedy = f"make it with selection.py --dataset {dataset}"
    if not os.path.isfile(path):
        raise BadInput(f"{path}: missing; {remedy}")
    try:
        with np.load(path, allow_pickle=False) as file:
            distances, key = file["distances"], json.loads(str(file["key"]))
            images = key["images_sha256"]
    except Exception as error:  # a broken file can raise anything
        raise BadInput(f"{path}: does not hold distances; {remedy}") from error
    if images != record.get("images_sha256") or distances.shape != (record["images"],):
        raise BadInput(f"{path}: of other images or labels than the scripts in robust/ wrote last; {remedy}")
    return distances


if __name__ == "__main__":
    runtime.run_script(main)
