"""Mislabel CIFAR-100's training images, for CIFAR100N: `python noisy-cifar.py`. Writes ../data/noisy."""
import project  # first: it finds the project's own modules
from datasets import open_dataset
from robust import labels, options
from utils.options import fraction, positive, run_script

RATE = 0.2  # the probability with which an image gets another label


def main() -> None:
    parser = options.make_parser("Mislabel CIFAR-100's training images.")
    parser.add_argument("--rate", "--share", default=RATE, type=fraction, help="probability of another label")
    parser.add_argument("--classes", type=positive, help="change labels of the first ones only, among these")
    args = parser.parse_args()
    data = open_dataset("CIFAR100", args.data)
    folder = args.data / "noisy"
    labels.mislabel_to_files(data, args.rate, args.seed, labels_path=folder / "cifar.npy",
                             changed_path=folder / "cifar_changed.npy", record_path=folder / "cifar.json",
                             classes=args.classes)


if __name__ == "__main__":
    run_script(main)
