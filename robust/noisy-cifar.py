"""Mislabel CIFAR-100's training images, for CIFAR100N: `python noisy-cifar.py`. Writes ../data/noisy."""
import project  # first: it finds the project's own modules
import runtime
from datasets import open_dataset
from robust import labels, options

SHARE = 0.2  # the probability with which an image gets another label


def main() -> None:
    parser = options.make_parser("Mislabel CIFAR-100's training images.")
    parser.add_argument("--share", default=SHARE, type=options.share, help="probability of another label")
    args = parser.parse_args()
    data = open_dataset("CIFAR100", args.data)
    folder = args.data / "noisy"
    labels.mislabel_to_files(data, args.share, args.seed, labels_path=folder / "cifar.npy",
                             changed_path=folder / "cifar_changed.npy", record_path=folder / "cifar.json")


if __name__ == "__main__":
    runtime.run_script(main)
