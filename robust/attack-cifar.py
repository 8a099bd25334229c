"""Attack CIFAR-100's training images with a trained network, for CIFAR100A: `python attack-cifar.py`

Writes to ../data/attack: cifar_train.npy, uint8 (50000, 32, 32, 3), and cifar.json, which attack it holds and
the network's accuracy before and after. Stopped and started again, it goes on where it was.
"""
import project  # first: it finds the project's own modules
from datasets import open_dataset
from robust import attacks
from utils.options import run_script

FOLDER = "attack"  # in --data
CKPT = project.ROOT / "ckpt/CIFAR100/resnet50/best.pth"

# Which attack:
# "GSA": one step along the gradient's sign (FGSM), against the label that the network predicts.
# "PGD": ten steps against the image's label, from a random start; that takes ten times as long.
# Both are written to the same files, so that the last one counts.
ATTACK = "GSA"


def main() -> None:
    folder, attack = attacks.parse_options("Attack CIFAR-100's training images with a trained network.",
                                           ATTACK, CKPT)
    attacks.attack_to_file(open_dataset("CIFAR100", folder), folder / FOLDER / "cifar_train.npy",
                           folder / FOLDER / "cifar.json", attack)


if __name__ == "__main__":
    run_script(main)
