"""Draw one sheet of real CIFAR-100 images, clean, under each corruption and under both attacks.

    python imgs/draw_scenes.py --arch resnet20 --ckpt ckpt/CIFAR100/resnet20/best.pth

Prints the network's accuracy on the first test images as they are and under both attacks. Writes
imgs/scenes.png.
"""
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from datasets import open_dataset
from datasets.images import Split
from datasets.transforms import as_array
from models import NETWORKS
from robust import attacks
from robust.corruptions import CORRUPTIONS
from robust.project import ROOT
from utils.device import random_stream, set_up
from utils.files import replacing
from utils.options import Parser, add_device_option, add_seed_option, positive, run_script

SHOWN = 8  # images at most
MAGNIFIED = 10
GRAY = 128
CELL, GAP, TEXT, MARGIN, SIZE = 64, 6, 250, 20, 15
INK = "#222222"


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--data", default=ROOT / "data", type=Path, help="folder that holds cifar-100-python")
    parser.add_argument("--ckpt", default=ROOT / "ckpt/CIFAR100/resnet20/best.pth", type=Path,
                        help="trained network")
    parser.add_argument("--arch", default="resnet20", choices=NETWORKS, help="network of --ckpt")
    add_device_option(parser)
    parser.add_argument("--images", default=1000, type=positive, help="test images that are attacked")
    parser.add_argument("--batch_size", default=100, type=positive, help="images at one time")
    add_seed_option(parser, "noise and random starts")
    parser.add_argument("--out", default=ROOT / "imgs/scenes.png", type=Path, help="the sheet")
    args = parser.parse_args(argv)
    set_up(args.device, args.seed)
    data = open_dataset("CIFAR100", args.data)
    network = attacks.load_attacked(data, args.arch, args.ckpt)
    labels = data.test.labels[:args.images]
    images = as_array(data.test.pixels(range(len(labels))))
    shown = np.sort(np.unique(labels, return_index=True)[1])[:SHOWN]  # of different classes
    attacked: dict[str, np.ndarray] = {}
    accuracies: dict[str, float] = {}
    for name in ("GSA", "PGD"):
        attack = attacks.Attack(name, args.arch, args.ckpt, batch_size=min(args.batch_size, len(labels)),
                                seed=args.seed)
        batches = list(attacks.attacked_batches(network, data, Split(images, labels), attack))
        attacked[name], correct = (np.concatenate([batch[key] for batch in batches])
                                   for key in ("images", "correct"))
        attacked[name] = attacked[name][shown]
        accuracies |= dict(zip(("clean", name), 100 * correct.mean(axis=0), strict=True))
    print(f"accuracy of {args.arch} on {len(labels)} test images: " + ", ".join(
        f"{name} {accuracy:.2f} %" for name, accuracy in accuracies.items()))
    captions = [data.classes[label].replace("_", " ") for label in labels[shown]]
    with replacing(args.out) as temporary:
        draw_sheet(images[shown], attacked, captions, args.seed).save(temporary, format="PNG")
    print(f"sheet in {args.out}")


def draw_sheet(images: np.ndarray, attacked: dict[str, np.ndarray], captions: list[str],
               seed: int) -> Image.Image:
    """Images, uint8 (n, 32, 32, 3), in rows: clean, corrupted, attacked, and what the attacks changed."""
    rows = {"clean": images}
    for name, corruption in CORRUPTIONS.items():
        rows[f"corruption: {name}"] = corruption(images, random_stream(seed, name))
    for name, pixels in attacked.items():
        difference = GRAY + MAGNIFIED * (pixels.astype(int) - images)
        rows[f"attack: {name}"] = pixels
        rows[f"{name} - clean, x{MAGNIFIED} around gray"] = np.clip(difference, 0, 255).astype(np.uint8)
    sheet = Image.new("RGB", (2 * MARGIN + TEXT + len(images) * (CELL + GAP) - GAP,
                              2 * MARGIN + len(rows) * (CELL + GAP) + 12), "white")
    pen, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(SIZE), ImageFont.load_default(10)
    lefts = range(MARGIN + TEXT, sheet.width, CELL + GAP)
    top = MARGIN
    for title, pictures in rows.items():
        pen.text((MARGIN, top + CELL // 2), title, INK, font, anchor="lm")
        for left, picture in zip(lefts, pictures, strict=False):
            sheet.paste(Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST), (left, top))
        top += CELL + GAP
    for left, caption in zip(lefts, captions, strict=False):
        pen.text((left, top), caption[:12], INK, small)
    return sheet


if __name__ == "__main__":
    run_script(main)
