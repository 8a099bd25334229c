"""Corrupt CIFAR-100's training images, for the data set CIFAR100C: `python corrupt-cifar.py`

Writes to ../data/cifar-100-corrupt: img.bin and targets.bin, pickles of a uint8 array (50000, 32, 32, 3) and
of a list of labels; kinds.npy, which image got which corruption; corrupt.json, the settings.
"""
import pickle

import project  # first: it finds the project's own modules
from datasets import open_dataset, scenes
from datasets.images import Split
from robust import corruptions, options, records
from utils.files import locked, replacing, write_array
from utils.options import run_script

# The folder in ../data that is written to.
FOLDER = "cifar-100-corrupt"

# Each of the five corruptions gets this fraction of the images.
RATE = 0.06


def main() -> None:
    parser = options.make_parser("Corrupt CIFAR-100's training images.")
    parser.add_argument("--folder", default=FOLDER, help="folder in --data that is written to; "
                        f"CIFAR100C reads {scenes.CORRUPT}")
    parser.add_argument("--rate", default=RATE, type=options.fraction_of_each,
                        help="fraction of the images for each corruption")
    args = parser.parse_args()
    train = open_dataset("CIFAR100", args.data).train
    kinds = corruptions.choose_kinds(len(train.labels), args.rate, args.seed)
    images = corruptions.corrupt(train.images, kinds, args.seed)
    folder = args.data / args.folder
    record = {"seed": args.seed, "rate": args.rate, "images": len(images),
              "images_sha256": Split(images, train.labels).sha256()}
    with locked(folder), records.recording(folder / "corrupt.json", record):
        for name, content in (("img.bin", images), ("targets.bin", train.labels.tolist())):
            with replacing(folder / name) as temporary, open(temporary, "wb") as file:
                pickle.dump(content, file, protocol=4)
        write_array(folder / "kinds.npy", kinds)
    print(f"{folder}: {corruptions.describe(kinds)}")
    if args.folder != scenes.CORRUPT:
        print(f"CIFAR100C reads {args.data / scenes.CORRUPT}: rename the folder to use it")


if __name__ == "__main__":
    run_script(main)
