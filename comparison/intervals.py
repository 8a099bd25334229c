"""Draw accuracy against the difficulty of the images kept, for one or several comparisons in one figure.

    python -m comparison.intervals results/CIFAR100N results/CIFAR100 --methods aum --out intervals.png
    python -m comparison.intervals results/CIFAR100N --map --out map.png
"""
import argparse
import itertools
from pathlib import Path

from utils import options  # first: utils sets what MindSpore reads when it is loaded

# isort: split
from comparison.tables import Row, read_runs
from methods import METHODS
from utils.errors import BadInput


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser(__doc__.splitlines()[0], prog="intervals.py")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="an --out of compare.py")
    parser.add_argument("--methods", nargs="+", default=["aum"], choices=METHODS, metavar="METHOD",
                        help="methods to draw")
    parser.add_argument("--map", action="store_true", help="draw points ahead of random by rate and "
                        "difficulty, instead of accuracy by difficulty at one rate")
    parser.add_argument("--out", required=True, type=Path, help="the .png or .svg file; both are written")
    args = parser.parse_args(argv)
    if len({folder.name for folder in args.folders}) < len(args.folders):
        parser.error("two folders have the same name, which would be that of their lines; rename one")
    if args.out.suffix not in (".png", ".svg"):
        parser.error(f"--out {args.out}: ends with neither .png nor .svg")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    try:
        from comparison import charts
    except ImportError as error:
        raise BadInput(f"no figure: {error}; install it by python -m pip install matplotlib") from None
    compared = {folder.name: rows_of(folder, args.methods) for folder in args.folders}
    drawn = (charts.draw_map if args.map else charts.draw_intervals)(compared)
    least = "two windows of its score and at random" if args.map else "three windows of its score at one rate"
    if drawn is None:
        raise BadInput(f"no method has runs at {least}; choose other --methods, or add runs by compare.py")
    figure, lines = drawn
    charts.save_figure(figure, args.out.with_suffix(""))
    print(f"{args.out.with_suffix('.png')} and .svg: {'; '.join(lines)}")
    for method, folder in itertools.product(args.methods, compared):
        line = f"{method}, {folder}" if len(compared) > 1 else method
        if line not in lines:
            options.warn(f"{line}: not drawn, since it has no runs at {least}")


def rows_of(folder: Path, methods: list[str]) -> list[Row]:
    """The rows of a runs.csv for these methods, with any options, and for random with the same protocols."""
    path = folder / "runs.csv"
    if not path.exists():
        raise BadInput(f"{path}: missing; choose folders that compare.py has written")
    rows = read_runs(path)
    chosen = [row for row in rows if row["method"].split(":")[0] in methods]
    protocols = {row["equal"] for row in chosen}
    return chosen + [row for row in rows if row["method"] == "random" and row["equal"] in protocols]


if __name__ == "__main__":
    options.run_script(main)
