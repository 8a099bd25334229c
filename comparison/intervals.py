"""Draw the intervals of scores in several comparisons, such as clean and wrong labels, as one picture.

    python -m comparison.intervals results/CIFAR100N results/CIFAR100 --methods aum --out intervals.png
"""
import argparse
import itertools
from pathlib import Path

from utils import options  # first: utils sets what MindSpore reads when it is loaded

# isort: split
from comparison.charts import draw_intervals
from comparison.tables import Row, read_runs
from methods import METHODS
from utils.errors import BadInput
from utils.files import replacing


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser(__doc__.splitlines()[0], prog="intervals.py")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="--out of a compare.py")
    parser.add_argument("--methods", nargs="+", default=["aum"], choices=METHODS, metavar="METHOD",
                        help="methods whose intervals are drawn")
    parser.add_argument("--out", required=True, type=Path, help="PNG file to write")
    args = parser.parse_args(argv)
    if len({folder.name for folder in args.folders}) < len(args.folders):
        parser.error("two folders of one name, by which the lines are told apart; rename one")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    compared = {folder.name: rows_of(folder, args.methods) for folder in args.folders}
    drawn = draw_intervals(compared)
    if drawn is None:
        raise BadInput("no method has runs at three quantiles of its score; name others in --methods, or "
                       "add such runs by compare.py")
    picture, lines = drawn
    with replacing(args.out) as temporary:
        picture.save(temporary, format="PNG")
    print(f"intervals of {'; '.join(lines)} in {args.out}")
    for method, folder in itertools.product(args.methods, compared):
        line = f"{method}, {folder}" if len(compared) > 1 else method
        if line not in lines:
            options.warn(f"{line}: not drawn; fewer than three quantiles of its score have runs at the rate "
                         "that is shown")


def rows_of(folder: Path, methods: list[str]) -> list[Row]:
    """The rows of a comparison's runs.csv of these methods, with any options, and random's beside them."""
    path = folder / "runs.csv"
    if not path.exists():
        raise BadInput(f"{path}: missing; name folders that compare.py has written")
    rows = read_runs(path)
    own = [row for row in rows if row["method"].split(":")[0] in methods]
    protocols = {row["equal"] for row in own}
    return own + [row for row in rows if row["method"] == "random" and row["equal"] in protocols]


if __name__ == "__main__":
    options.run_script(main)
