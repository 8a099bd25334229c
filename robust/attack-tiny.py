"""Attack Tiny ImageNet's training images with a trained network, for tinyA: `python attack-tiny.py`

Writes to ../data/attack: tiny_img.npy, uint8 (100000, 64, 64, 3); tiny_target.npy, labels; tiny.json, which
attack it is and the network's accuracy before and after. Stopped and started again, it goes on where it was.
"""
import project  # first: it finds the project's own modules
import runtime
from robust import attacks, options, results

# In --data, or beside the data set's folder where --data names that.
FOLDER = "attack"
CKPT = project.ROOT / "ckpt/tiny/resnet50/best.pth"

# Which attack:
# "PGD": ten steps against the image's label, from a random start.
# "GSA": one step along the gradient's sign, against the label that the network predicts.
# Both are written to the same files.
ATTACK = "PGD"


def main() -> None:
    parser = options.make_parser("Attack Tiny ImageNet's training images with a trained network.")
    attacks.add_options(parser, ATTACK, CKPT)
    args = parser.parse_args()
    device = runtime.set_up(args.device, args.seed)
    data, above = options.open_tiny(args.data)
    folder = above / FOLDER
    attacks.attack_to_file(data, folder / "tiny_img.npy", folder / "tiny.json", args.attack,
                           attacks.Budget(args.eps, args.alpha, args.steps), args.arch, args.ckpt, device,
                           args.batch_size, args.seed)
    results.save_array(folder / "tiny_target.npy", data.train.labels.astype("int64"))


if __name__ == "__main__":
    runtime.run_script(main)
