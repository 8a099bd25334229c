"""Mislabel CIFAR-100's training images, for CIFAR100N: `python noisy-cifar.py`. Writes ../data/noisy."""
import project  # noqa: F401  first: it finds the project's own modules
from datasets.cifar import read_cifar100
from robust import labels, options
from utils.options import run_script

RATE = 0.2  # the probability with which an image gets another label


def main() -> None:
    parser = options.make_parser("Mislabel CIFAR-100's training images.")
    options.add_noise_options(parser, RATE)
    args = parser.parse_args()
    train, _, classes = read_cifar100(args.data)
    labels.mislabel_to_files(train, len(classes), args.rate, args.seed, args.data / "noisy/cifar.npy",
                             first=args.classes)


if __name__ == "__main__":
    run_script(main)
