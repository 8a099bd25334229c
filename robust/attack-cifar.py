"""Attack CIFAR-100's training images with a trained network, for CIFAR100A: `python attack-cifar.py`

Writes to ../data/attack: cifar_train.npy, uint8 (50000, 32, 32, 3), and cifar.json, which attack it holds and
the network's accuracy before and after. Stopped and started again, it goes on where it was.
"""
import project  # first: it finds the project's own modules
import runtime
from datasets import open_dataset
from robust import attacks, options

FOLDER = "attack"  # in --data
CKPT = project.ROOT / "ckpt/CIFAR100/resnet50/best.pth"

# Which attack:
# "PGD": ten steps against the image's label, from a random start.
# "GSA": one step along the gradient's sign, against the label that the network predicts.
# Both are written to the same files.
ATTACK = "PGD"


def main() -> None:
    parser = options.make_parser("Attack CIFAR-100's training images with a trained network.")
    attacks.add_options(parser, ATTACK, CKPT)
    args = parser.parse_args()
    device = runtime.set_up(args.device, args.seed)
    data = open_dataset("CIFAR100", args.data)
    folder = args.data / FOLDER
    attacks.attack_to_file(data, folder / "cifar_train.npy", folder / "cifar.json", args.attack,
                           attacks.Budget(args.eps, args.alpha, args.steps), args.arch, args.ckpt, device,
                           args.batch_size, args.seed)


if __name__ == "__main__":
    runtime.run_script(main)
