"""Attack Tiny ImageNet's training images with a trained network, for tinyA: `python attack-tiny.py`

Train the network first, in the folder above: `python train.py --dataset tiny --data data/tiny-imagenet-200`
Writes to ../data/attack: tiny_img.npy, uint8 (100000, 64, 64, 3), tiny_target.npy, tiny.json.
To resume an attack that was stopped, repeat the command.
"""
import project  # noqa: F401  first: it finds the project's own modules
from datasets import open_dataset
from robust import attacks, options
from utils.arrays import read_array
from utils.device import set_up
from utils.errors import BadInput
from utils.files import write_array
from utils.options import run_script

# "GSA": one step along the gradient's sign (FGSM), against the label that the network predicts.
# "PGD": ten steps against the image's label, from a random start; that takes ten times as long.
ATTACK = "GSA"


def main() -> None:
    parser = options.make_parser("Attack Tiny ImageNet's training images with a trained network.")
    parser.set_defaults(dataset="tiny")
    args, attack = attacks.parse_attack_options(parser, ATTACK)
    device = set_up(args.device, args.seed)
    data_folder, above = options.tiny_folder(args.data)
    data, folder = open_dataset("tiny", data_folder), above / "attack"
    labels, path = data.train.labels.astype("int64"), folder / "tiny_target.npy"
    if path.exists() and read_array(path, "move it away").tolist() != labels.tolist():
        raise BadInput(f"{path}: its labels differ from those of {data_folder}; move it away")
    attacks.attack_to_file(data, folder / "tiny_img.npy", folder / "tiny.json", attack, device)
    write_array(path, labels)


if __name__ == "__main__":
    run_script(main)
