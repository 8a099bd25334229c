"""Mislabel CIFAR's training images, for CIFAR100N or CIFAR10N: `python noisy-cifar.py`; see README.md."""
import project  # noqa: F401  first: it finds the project's own modules
from datasets.cifar import RELEASES, read_cifar
from robust import labels, options
from utils.options import run_script

RATE = 0.2  # the probability with which an image gets another label


def main() -> None:
    parser = options.make_parser("Mislabel the training images of CIFAR-100 or CIFAR-10.")
    parser.add_argument("--dataset", default="CIFAR100", choices=RELEASES, help="data set")
    options.add_noise_options(parser, RATE)
    args = parser.parse_args()
    train, _, classes = read_cifar(args.data, args.dataset)
    labels.mislabel_to_files(train, len(classes), args.rate, args.seed,
                             args.data / f"noisy/{RELEASES[args.dataset].prefix}.npy", first=args.classes)


if __name__ == "__main__":
    run_script(main)
