"""Choose a coreset: keep the training images whose distances to their class centers lie nearest the median.

    python selection.py --dataset CIFAR100 --ckpt ckpt/CIFAR100/resnet50/best.pth --rate 0.2
    python selection.py --labels L.npy --dynamics D.npy --method aum --rate 0.2     (any training run)

Other methods by --method, other rules for their scores by --keep. Writes <save>/<dataset>.bin (ids to drop),
.kept.npy (ids to keep), .json (manifest), .scores.npy and .png; for other methods than moderate
<save>/<dataset>-<method>.*; followed by what is not the method's default, such as -keep-middle; for images in
files also .txt, the files kept.
"""
import argparse
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils import distributed, options  # first: utils sets what MindSpore reads when it is loaded

# isort: split
import numpy as np

from datasets import SOURCES, DataSet
from datasets.inputs import hard_end_of, open_dataset_of, read_arrays, read_labels
from methods import METHODS, InvalidInput, Selection, configure
from methods.checks import check_labels
from methods.select import COMMON, any_score, settings_by_name
from utils.device import versions
from utils.errors import BadInput
from utils.files import locked, replacing_all, sha256, writable, write_array
from utils.index import write_index
from utils.picture import draw_selection

FILES = "features", "logits", "dynamics", "score"  # options that take an array of your own
OF_DATA = "dataset", "data", "image_size", "classes", "arch", "ckpt", "workers"  # without effect by --labels
SUFFIXES = ".bin", ".json", ".kept.npy", ".scores.npy", ".png", ".txt"  # of the files written


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser("Choose a coreset.")
    data = parser.add_argument_group("what the images are scored by")
    options.add_data_options(data, SOURCES)
    data.add_argument("--ckpt", type=Path, help="checkpoint of a network trained on the whole data set")
    data.add_argument("--arch", help="network of --ckpt (default: as in args.json beside it, else resnet50)")
    data.add_argument("--features", type=Path, help="your own features, .npy (n, d)")
    data.add_argument("--logits", type=Path, help="your own logits, .npy (n, k)")
    data.add_argument("--dynamics", type=Path, help="training dynamics, .npy (epochs, 3, n) (default: "
                      "dynamics.npy beside --ckpt)")
    data.add_argument("--score", type=Path, help="a score of your own, .npy (n,), instead of --method")
    data.add_argument("--labels", type=Path, help="labels of these arrays instead of a data set's: .npy "
                      "(n,), or .csv or .txt with one label per line")
    options.add_device_option(data)
    choice = parser.add_argument_group("selection")
    choice.add_argument("--rate", default=1.0, help="fraction of the images to keep, in (0, 1]; 1: all")
    choice.add_argument("--method", help=f"one of {', '.join(METHODS)} (default: moderate)")
    choice.add_argument("--keep", metavar="RULE", help=f"one of {', '.join(any_score())}, or the difficulty "
                        "around which images are kept, from 0 (easiest) to 1 (hardest) (default: the "
                        "method's own rule)")
    choice.add_argument("--hard", help="for --score: high or low, the end at which the hard images are")
    options.add_boolean_option(choice, "--per_class", None, "let the rule work inside each class and keep "
                               "the same fraction of each (default: the method's own)")
    choice.add_argument("--hard_cutoff", help="fraction of the images that is dropped first, at the hard end "
                        "(default: the method's own)")
    choice.add_argument("--first_epochs", help="use only so many epochs of the dynamics, the first ones "
                        "(default: the method's own)")
    options.add_seed_option(choice, "what a method draws, also to break ties; moderate by itself "
                            "draws nothing")
    choice.add_argument("--save", default="index", type=Path, help="folder of the index")
    settings = parser.add_argument_group("settings of methods")
    for name, (setting, owners) in settings_by_name().items():
        values = f"; one of {', '.join(setting.choices)}" if setting.choices else ""
        settings.add_argument(f"--{name}", default=argparse.SUPPRESS, help=f"for {', '.join(owners)}: "
                              f"{setting.help}{values} (default: {setting.default})")
    args = parser.parse_args(argv)
    given = [name for name in settings_by_name() if name in args]
    try:
        if args.method and args.score:
            raise InvalidInput("score", f"replaces --method {args.method}; pass one of the two")
        args.method = args.method or (None if args.score else "moderate")
        args.hard = args.hard or (hard_end_of(args.score) if args.score else None)
        with options.warnings_shown():
            args.selection = configure(**{name: getattr(args, name) for name in (
                "method", "rate", *COMMON, "hard", "seed", *given)})
        check_inputs(args)
    except InvalidInput as error:
        parser.error(f"--{error}")
    return args


def check_inputs(args: argparse.Namespace) -> None:
    """Raise InvalidInput where the options of data and arrays do not go together with the method."""
    needs = (*args.selection.needs, *(["score"] if args.score else []))
    own = [name for name in FILES if getattr(args, name)]
    for name in own:
        if name not in needs:
            raise InvalidInput(name, f"has no effect with --method {args.method}; omit it")
        if args.ckpt and name in ("features", "logits"):
            raise InvalidInput(name, "replaces --ckpt; pass one of the two")
    if args.labels:
        for name in OF_DATA:
            if getattr(args, name) is not None:
                raise InvalidInput(name, "has no effect with --labels; omit it")
    for name in needs:
        if not getattr(args, name) and not args.ckpt:
            raise InvalidInput(name, f"missing, and so is --ckpt; --method {args.method} needs "
                               f"{' and '.join(needs)}: pass --ckpt, a best.pth of train.py, or --{name}")
    if own and not (args.labels or args.dataset or args.ckpt) and not (
            own == ["dynamics"] and (args.dynamics.parent / "args.json").exists()):
        raise InvalidInput("labels", f"missing, and so is --dataset; pass one, for the labels of --{own[0]}")


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    selection, own = args.selection, {name: path for name in FILES if (path := getattr(args, name))}
    if args.labels:
        labels, data, origin = read_labels(args.labels), None, {"labels_sha256": sha256(args.labels)}
    else:
        chosen = {key: getattr(args, key) for key in (*OF_DATA, "name")}
        data, origin = open_dataset_of(args.ckpt or args.dynamics, chosen)
        labels = data.train.labels
    if data and any(len(name.splitlines()) > 1 for name in data.train.file_names):
        raise BadInput(f"--data: a file of {data.name} has a line break in its name, which no list of names "
                       "can hold; rename it")
    files_of = {"labels": args.labels, **own}
    if args.ckpt:
        files_of.setdefault("dynamics", args.ckpt.with_name("dynamics.npy"))
    with writable(args.save), options_named(files_of):  # found out before a long pass
        classes, strings = check_labels(labels)
        selection.size(len(classes))
        arrays, files = read_arrays(selection.needs, own, args.ckpt, data, args.save, args.arch, args.workers,
                                    args.device)
        distributed.end_others()
        names = data.classes if data else strings
        print(f"{selection.name}: keeps {selection.rule.keeps}{', of each class' * selection.per_class}")
        with options.warnings_shown():
            kept, score = selection.select(labels, arrays, arrays.get("score"), names)
    captions = [str(label) if names is None else names[label] for label in classes]
    stem = files_stem(args, data, own)
    manifest = describe(selection, data, stem, classes, captions, kept, score) | origin | files
    if data and stem != data.name:  # so that a coreset run has a folder of its own
        manifest["not_default"].insert(0, re.sub(r"[^\w.-]", "_", stem))
    index = args.save / selection.index_name(stem)
    with locked(args.save), replacing_all([index.with_suffix(suffix) for suffix in SUFFIXES]) as folder:
        write_files(folder / index.name, selection, data, captions, kept, score, manifest)
    print(f"ids kept in {index.with_suffix('.kept.npy')}, ids to drop in {index}")
    if len(kept) == len(classes):
        options.warn(f"nothing is dropped at --rate {selection.rate:g}; pass the fraction to keep, such as "
                     "0.2")


@contextlib.contextmanager
def options_named(files: dict[str, Path]) -> Iterator[None]:
    """Turn InvalidInput into bad input that names the file, the option or the score."""
    try:
        yield
    except InvalidInput as error:
        name = f"{'' if ' ' in error.keyword else '--'}{error.keyword}"
        raise BadInput(f"{files.get(error.keyword) or name}: {error.problem}") from error


def files_stem(args: argparse.Namespace, data: DataSet | None, own: dict[str, Path]) -> str:
    """The beginning of the files' names: the data set, then your own file that the method reads."""
    read = own or ({"labels": args.labels} if args.labels else {})
    if args.dynamics and (args.dynamics.parent / "args.json").exists():
        read = {name: path for name, path in read.items() if name != "dynamics"}  # of a run on the data set
    stem = [next(iter(read.values())).stem] if read else []
    return args.name if args.labels and args.name else "-".join([*([data.name] if data else []), *stem])


def describe(selection: Selection, data: DataSet | None, stem: str, classes: np.ndarray, captions: list[str],
             kept: np.ndarray, score: np.ndarray | None) -> dict[str, Any]:
    """The manifest as far as the selection decides it; prints how many images of a class are kept."""
    present, first, class_of = np.unique(classes, return_index=True, return_inverse=True)
    counts, n = np.bincount(class_of[kept], minlength=len(first)), len(classes)
    seed = [f"seed-{selection.seed}"] if selection.draws and selection.seed != options.SEED else []
    manifest = {"dataset": data.name if data else stem, **selection.options(), "keep_scale": "difficulty",
                "not_default": [*selection.changes(), *seed], "images": n, "kept": len(kept),
                "dropped": n - len(kept), "kept_by_class": counts.tolist(), "versions": versions()}
    if not data:
        manifest["class_names"] = [captions[i] for i in first]
    if score is not None:
        manifest |= {"hard": selection.method.hard, "kept_band": [score[kept].min(), score[kept].max()]}
    if data and (perturbed := data.perturbed) is not None:
        manifest |= {"perturbed_percent": 100 * perturbed.mean(),
                     "kept_perturbed_percent": 100 * perturbed[kept].mean()}
        print(f"{manifest['kept_perturbed_percent']:.1f} % of the coreset are mislabelled or corrupted, "
              f"{manifest['perturbed_percent']:.1f} % of all images")
    low, high = (f"{counts[i]} ({captions[first[i]]})" for i in (counts.argmin(), counts.argmax()))
    print(f"kept {len(kept)} of {n} images, {low} to {high} per class")
    return manifest


def write_files(index: Path, selection: Selection, data: DataSet | None, captions: list[str],
                kept: np.ndarray, score: np.ndarray | None, manifest: dict[str, Any]) -> None:
    """Write index, manifest, ids kept, scores, figure and, where images are files, names of those kept."""
    n = len(captions)
    ids = data.train.ids if data else np.arange(n)
    write_index(index, np.delete(ids, kept), manifest)
    write_array(index.with_suffix(".kept.npy"), ids[kept].astype(np.int32))
    if score is not None:
        write_array(index.with_suffix(".scores.npy"), score)
    if data and (files := data.train.file_names):
        index.with_suffix(".txt").write_bytes(b"".join(files[i] + b"\n" for i in kept))
    if data or score is not None:
        title = (f"{manifest['dataset']}, {selection.title(' ', ' ')}: {len(kept)} of {n} training images "
                 f"kept (rate {selection.rate:g})")
        picture = draw_selection(title, score, selection.method.hard,
                                 selection.method.measure, kept, n, data.pictures if data else None, captions)
        picture.save(index.with_suffix(".png"), format="PNG")


if __name__ == "__main__":
    options.run_script(main)
