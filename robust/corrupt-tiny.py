"""Corrupt the training images of a copy of Tiny ImageNet in place, for tinyC: `python corrupt-tiny.py`

Make the copy first: cp -r ../data/tiny-imagenet-200 ../data/tiny-imagenet-200-corrupt

Which image got which corruption stands in corrupt.json in the copy. May be stopped and run again; refuses a
copy that is finished.
"""
import project  # first: it finds the project's own modules
from robust import options
from robust.in_place import corrupt_copy
from utils.options import run_script

# The copy's folder in --data; --data may also name the copy itself.
FOLDER = "tiny-imagenet-200-corrupt"

# Each of the five corruptions gets this fraction of the images: with 0.2 every image is corrupted. The
# paper's tables use 20 % in all, 0.04.
RATE = 0.2


def main() -> None:
    parser = options.make_parser("Corrupt the training images of a copy of Tiny ImageNet in place.")
    parser.add_argument("--rate", default=RATE, type=options.fraction_of_each,
                        help="fraction of the images for each corruption")
    args = parser.parse_args()
    corrupt_copy(options.tiny_folder(args.data, FOLDER)[0], args.rate, args.seed)


if __name__ == "__main__":
    run_script(main)
