"""Attack Tiny ImageNet's training images with a trained network, for tinyA: `python attack-tiny.py`

Writes to ../data/attack: tiny_img.npy, uint8 (100000, 64, 64, 3); tiny_target.npy, labels; tiny.json, which
attack it is and the network's accuracy before and after. Stopped and started again, it goes on where it was.
"""
import project  # first: it finds the project's own modules
from robust import attacks, options
from utils.files import write_array
from utils.options import run_script

FOLDER = "attack"  # in --data, or beside the data set's folder where --data names that
CKPT = project.ROOT / "ckpt/tiny/resnet50/best.pth"

# Which attack:
# "GSA": one step along the gradient's sign (FGSM), against the label that the network predicts.
# "PGD": ten steps against the image's label, from a random start; that takes ten times as long.
# Both are written to the same files, so that the last one counts.
ATTACK = "GSA"


def main() -> None:
    folder, attack = attacks.parse_options("Attack Tiny ImageNet's training images with a trained network.",
                                           ATTACK, CKPT)
    data, above = options.open_tiny(folder)
    attacks.attack_to_file(data, above / FOLDER / "tiny_img.npy", above / FOLDER / "tiny.json", attack)
    write_array(above / FOLDER / "tiny_target.npy", data.train.labels.astype("int64"))


if __name__ == "__main__":
    run_script(main)
