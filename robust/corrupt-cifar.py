"""Corrupt the training images of CIFAR, for CIFAR100C or CIFAR10C: `python corrupt-cifar.py`

Writes img.bin, targets.bin, kinds.npy and corrupt.json to ../data/cifar-100-corrupt; see robust/README.md.
"""
import pickle

import project  # noqa: F401  first: it finds the project's own modules
from datasets import scenes
from datasets.cifar import RELEASES, read_cifar
from datasets.images import Split
from robust import corruptions, options
from utils.files import locked, replacing, write_array
from utils.options import run_script

# The folder in ../data that is written to; CIFAR100C reads this one.
FOLDER = "cifar-100-corrupt"
# The fraction of the images that each of the five corruptions gets: 0.2 corrupts every image, 0.04 the
# paper's 20 %.
RATE = 0.06


def main() -> None:
    parser = options.make_parser("Corrupt the training images of CIFAR-100 or CIFAR-10.")
    parser.add_argument("--dataset", default="CIFAR100", choices=RELEASES, help="data set")
    parser.add_argument("--folder", help=f"folder in --data that is written to (default: {FOLDER}, for "
                        f"CIFAR10 {RELEASES['CIFAR10'].corrupt})")
    parser.add_argument("--rate", default=RATE, type=options.rate_of_each,
                        help="fraction of the images for each corruption")
    args = parser.parse_args()
    expected = RELEASES[args.dataset].corrupt
    args.folder = args.folder or (FOLDER if args.dataset == "CIFAR100" else expected)
    train, _, _ = read_cifar(args.data, args.dataset)
    n = len(train.labels)
    kinds = corruptions.choose_kinds(n, args.rate, args.seed)
    images = corruptions.corrupt(train.pixels(range(n)), kinds, args.seed)
    folder = args.data / args.folder
    record_path, paths = folder / scenes.NOTE, (folder / "img.bin", folder / "targets.bin")
    with locked(folder):
        options.begin_files(record_path, *paths)
        for path, content in zip(paths, (images, train.labels.tolist()), strict=True):
            with replacing(path) as temporary, open(temporary, "wb") as file:
                pickle.dump(content, file, protocol=4)
        write_array(folder / "kinds.npy", kinds)
        options.write_record(record_path, {"seed": args.seed, "rate": args.rate, "images": n,
                                           "images_sha256": Split(images, train.labels).sha256()}, *paths)
    print(f"{folder}: {corruptions.describe(kinds)}")
    if args.folder != expected:
        print(f"{args.dataset}C reads {args.data / expected}: rename the folder to use it")


if __name__ == "__main__":
    run_script(main)
