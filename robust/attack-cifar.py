"""Attack the training images of CIFAR, for CIFAR100A or CIFAR10A: `python attack-cifar.py`

Train the network first, in the folder above: `python train.py --dataset CIFAR100 --data data`
Writes to ../data/attack: cifar_train.npy, uint8 (50000, 32, 32, 3), and cifar.json, settings and accuracies;
for CIFAR-10 (--dataset CIFAR10) cifar10_train.npy and cifar10.json.
To resume an attack that was stopped, repeat the command.
"""
import project  # noqa: F401  first: it finds the project's own modules
from datasets import open_dataset
from datasets.cifar import RELEASES, read_cifar
from robust import attacks, options
from utils.device import set_up
from utils.options import positive, run_script

# The kind of attack:
# "GSA": one step along the gradient's sign (FGSM), against the label that the network predicts.
# "PGD": ten steps against the image's label, from a random start; that takes ten times as long.
ATTACK = "GSA"


def main() -> None:
    parser = options.make_parser("Attack the training images of CIFAR with a trained network.")
    parser.add_argument("--dataset", default="CIFAR100", choices=RELEASES, help="data set")
    parser.add_argument("--classes", type=positive, help="attack the images of the first CLASSES classes "
                        "only, with a network trained on these (default: all)")
    args, attack = attacks.parse_attack_options(parser, ATTACK)
    device = set_up(args.device, args.seed)
    data = open_dataset(args.dataset, args.data, classes=args.classes)
    all_images = read_cifar(args.data, args.dataset)[0] if args.classes else None
    record_path = args.data / f"attack/{RELEASES[args.dataset].prefix}.json"
    attacks.attack_to_file(data, record_path.with_name(f"{record_path.stem}_train.npy"), record_path, attack,
                           device, all_images)


if __name__ == "__main__":
    run_script(main)
