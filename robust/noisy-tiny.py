"""Mislabel Tiny ImageNet's training images, for the data set tinyN: `python noisy-tiny.py`

Writes tiny_img.npy, tiny_target.npy, tiny_changed.npy and tiny.json to ../data/noisy."""
import project  # noqa: F401  first: it finds the project's own modules
from datasets.tiny import read_tiny
from robust import labels, options
from utils.options import run_script

RATE = 0.2  # the probability with which an image gets another label


def main() -> None:
    parser = options.make_parser("Mislabel Tiny ImageNet's training images.")
    options.add_noise_options(parser, RATE)
    args = parser.parse_args()
    data_folder, above = options.tiny_folder(args.data)
    (train, _, classes), folder = read_tiny(data_folder), above / "noisy"
    labels.mislabel_to_files(train, len(classes), args.rate, args.seed, folder / "tiny_target.npy",
                             images_path=folder / "tiny_img.npy", first=args.classes)


if __name__ == "__main__":
    run_script(main)
