"""Attack CIFAR-100's training images with a trained network, for CIFAR100A: `python attack-cifar.py`

Train the network first, in the folder above: `python train.py --dataset CIFAR100 --data data`
Writes to ../data/attack: cifar_train.npy, uint8 (50000, 32, 32, 3), and cifar.json, settings and accuracies.
To resume an attack that was stopped, repeat the command.
"""
import project  # noqa: F401  first: it finds the project's own modules
from datasets import open_dataset
from datasets.cifar import read_cifar100
from robust import attacks, options
from utils.device import set_up
from utils.options import positive, run_script

# The kind of attack, as --attack:
#
# "GSA": one step along the gradient's sign (FGSM), against the label that the network predicts.
# "PGD": ten steps against the image's label, from a random start; that takes ten times as long.
ATTACK = "GSA"


def main() -> None:
    parser = options.make_parser("Attack CIFAR-100's training images with a trained network.")
    parser.add_argument("--classes", type=positive, help="attack the images of the first CLASSES classes "
                        "only, with a network trained on these; None: of all")
    args, attack = attacks.parse_attack_options(parser, ATTACK, "CIFAR100")
    device = set_up(args.device, args.seed)
    data, folder = open_dataset("CIFAR100", args.data, classes=args.classes), args.data / "attack"
    whole = read_cifar100(args.data)[0] if args.classes else None
    attacks.attack_to_file(data, folder / "cifar_train.npy", folder / "cifar.json", attack, device, whole)


if __name__ == "__main__":
    run_script(main)
