"""The way from labels and arrays to the images kept: a checked selection, the score, the rule."""
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .blocks import members_of_classes
from .checks import (
    InvalidInput,
    boolean,
    check_array,
    check_columns,
    check_labels,
    check_score,
    number,
    one_of,
)
from .rules import RULES, WINDOWS, Candidates, Rule, Setting, find_rule, ranking
from .table import METHODS, Method

SEED = 42
OWN_SCORE = "score"  # stands in the place of a method's name for a score of the caller's own
COMMON = "keep", "per_class", "hard_cutoff", "first_epochs"  # options that replace what METHODS says
OLD_RULES = "lowest", "highest"
FEW = 0.25  # of a class's fair number: fewer kept images are a warning
TIE = 0.1  # of the coreset: a larger part that is drawn among equal scores is a warning


class SelectionWarning(UserWarning):
    """A coreset that may not be what is wanted: classes with hardly an image, a choice that is a draw."""


@dataclass(frozen=True)
class Selection:
    """What a selection does, complete and checked; made by `configure`.

    Args:
        name: of the method; OWN_SCORE for a score of the caller's own.
        rate: fraction of the images that is kept.
        keep: the rule's name, or the difficulty at which its window lies, such as "0.3".
        settings: those of the score and the rule, by name.
        seed: for what the method draws.
    """
    name: str
    method: Method
    rate: float
    keep: str
    rule: Rule
    per_class: bool
    hard_cutoff: float
    first_epochs: int | None
    settings: dict[str, Any]
    seed: int

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that score and rule need, of "features", "logits" and "dynamics"."""
        return tuple(dict.fromkeys((*self.method.needs, *self.rule.needs)))

    @property
    def draws(self) -> bool:
        """Whether the seed matters: for ties of the score, the rounding between classes or the rule."""
        return bool(self.method.score and self.method.ties_by_seed) or self.per_class or self.rule.draws

    def options(self) -> dict[str, Any]:
        """All that was chosen by name, for a manifest; without the seed where it does not matter."""
        epochs = {"first_epochs": self.first_epochs} if "dynamics" in self.needs else {}
        seed = {"seed": self.seed} if self.draws else {}
        return {"method": self.name, "rate": self.rate, "keep": self.keep, "per_class": self.per_class,
                "hard_cutoff": self.hard_cutoff, **epochs, **self.settings, **seed}

    def changes(self, equals: str = "-") -> list[str]:
        """What differs from the method's own rule and settings, such as keep-middle and per_class."""
        settings = self.method.settings | self.rule.settings
        usual = {"keep": self.method.rule, "per_class": self.method.per_class,
                 "hard_cutoff": own_cutoff(self.method, self.rate), "first_epochs": self.method.first_epochs,
                 **{name: setting.default for name, setting in settings.items()}}
        return [name if value is True else f"{name}{equals}{value}" for name, default in usual.items()
                if (value := self.settings.get(name, getattr(self, name, None))) != default]

    def title(self, join: str = "-", equals: str = "-") -> str:
        """Its name in files and tables: the method and its changes, such as aum-keep-middle."""
        return join.join([self.name, *self.changes(equals)])

    def index_name(self, stem: str) -> str:
        """The name of its index: <stem>[-<method>][-<change>...].bin, moderate being the usual method."""
        return f"{'-'.join([stem, *([] if self.name == 'moderate' else [self.name]), *self.changes()])}.bin"

    def size(self, n: int) -> int:
        """The number of images that are kept of n.

        Raises:
            InvalidInput: none is kept, or the cut-off leaves too few.
        """
        size = coreset_size(n, self.rate)
        if not size:
            raise InvalidInput("rate", f"{self.rate:g} keeps none of {n} images; choose a larger one")
        cut(np.arange(n), self.hard_cutoff, "high", size)
        return size

    def select(self, labels: Any, arrays: dict[str, Any], score: Any = None,
               class_names: Sequence[str] | np.ndarray | None = None
               ) -> tuple[np.ndarray, np.ndarray | None]:
        """The positions kept and the score, as the function `select` returns them.

        Args:
            arrays: by name; those that the selection does not need may be missing.
            score: (n,), in the place of the method's, such as its mean over several runs; None: the method's.
            class_names: for warnings, of labels that are positions in it.
        """
        numbers, classes = check_labels(labels)
        n = len(numbers)
        size = self.size(n)
        inputs = {name: check_array(name, arrays.get(name), n, self.first_epochs) for name in self.needs}
        if self.method.labels_are_columns:
            check_columns(numbers, classes, inputs["logits"].shape[1])
        generator = np.random.default_rng([self.seed, *self.name.encode()])
        if score is not None:
            score = check_score(score, n, "score")
        elif self.method.score:
            score = score_of(self, numbers, inputs, generator)
        kept = keep_images(self, numbers, size, score, inputs, generator)
        if score is not None:
            warn_of_ties(self, score, kept)
        warn_of_classes(self, numbers, kept, class_names if classes is None else classes)
        return kept, score


def coreset_size(n: int, rate: float) -> int:
    """Images in a coreset of n * rate, with the release's rounding: for some n one more or less."""
    return round(n * (0.5 + rate / 2)) - round(n * (0.5 - rate / 2))


def configure(method: str | None = None, *, rate: Any, keep: Any = None, hard: str | None = None,
              per_class: Any = None, hard_cutoff: Any = None, first_epochs: Any = None, seed: Any = SEED,
              **settings: Any) -> Selection:
    """Check the options of a selection and fill in the method's own where they are None.

    Numbers and booleans may be text, as a command line has them.

    Args:
        method: None: for a score of the caller's own, which needs `keep` and, except for the rule middle,
            `hard`.

    Raises:
        InvalidInput: a name is unknown, a number is out of its range, or an option does not fit the method.
    """
    if method is None:
        name, row = OWN_SCORE, own_method(keep, hard)
    else:
        name, row = method, METHODS[one_of(method, "method", METHODS)]
        if hard is not None:
            raise InvalidInput("hard", f"only for a score of your own; that of {name} has its hard end")
        for option, value in (("keep", keep), ("hard_cutoff", hard_cutoff)):
            if value is not None and not row.score:
                raise InvalidInput(option, f"the method {name} has no score; those that have one: "
                                   f"{', '.join(key for key, other in METHODS.items() if other.score)}")
    keep = row.rule if keep is None else rule_name(keep, name, row.hard)
    rule = find_rule(keep)
    fraction = number(rate, "rate", high=1, above=True)
    cutoff = own_cutoff(row, fraction)
    if hard_cutoff is not None:
        cutoff = number(hard_cutoff, "hard_cutoff", high=1)
    elif cutoff < row.hard_cutoff:
        warnings.warn(f"{name}: its hard_cutoff {row.hard_cutoff:g} leaves fewer images than the rate "
                      f"{fraction:g} keeps and becomes {cutoff:g}", stacklevel=2)
    quotas = row.per_class if per_class is None else boolean(per_class, "per_class")
    epochs = row.first_epochs
    if first_epochs is not None:
        if "dynamics" not in (*row.needs, *rule.needs):
            raise InvalidInput("first_epochs", f"the method {name} uses no dynamics")
        epochs = int(number(first_epochs, "first_epochs", 1, whole=True))
    return Selection(name, row, fraction, keep, rule, quotas, cutoff, epochs,
                     check_settings(name, keep, row.settings | rule.settings, settings),
                     int(number(seed, "seed", high=2 ** 32 - 1, whole=True)))


def own_method(keep: Any, hard: str | None) -> Method:
    """The row of a score of the caller's own."""
    if keep is None:
        raise InvalidInput("keep", "missing; a score of your own has no usual rule; choose one of "
                           f"{', '.join(any_score())}, or a number from 0 (easiest) to 1 (hardest)")
    if hard is None and rule_name(keep, OWN_SCORE, "high") != "middle":
        raise InvalidInput("hard", "missing; high or low, the end of your score at which the hard images are")
    return Method("", lambda *_: np.empty(0), hard=one_of(hard or "high", "hard", ("high", "low")),
                  measure="score")


def rule_name(keep: Any, method: str, hard: str) -> str:
    """A rule for any score by its name, or the difficulty of a window: a number from 0 to 1."""
    if keep in any_score():
        return keep
    if keep in OLD_RULES:
        new = "hardest" if (keep == "highest") == (hard == "high") else "easiest"
        raise InvalidInput("keep", f"rules count difficulty now; {keep} is {new} for {method}")
    try:
        difficulty = number(keep, "keep", high=1)
    except InvalidInput:
        raise InvalidInput("keep", f"{keep!r} is neither one of {', '.join(any_score())} nor a number from 0 "
                           "(easiest) to 1 (hardest)") from None
    return next((name for name, named in WINDOWS.items() if named == difficulty), f"{difficulty:g}")


def any_score() -> list[str]:
    """The names of the rules that take any score."""
    return [name for name, rule in RULES.items() if rule.any_score]


def own_cutoff(method: Method, rate: float) -> float:
    """A method's own cut-off, which gives way to what the rate leaves."""
    return min(method.hard_cutoff, float(f"{1 - rate:g}"))


def settings_by_name() -> dict[str, tuple[Setting, list[str]]]:
    """Each setting of a score or a rule, and the methods that have it."""
    by_name: dict[str, tuple[Setting, list[str]]] = {}
    for method, row in METHODS.items():
        for name, setting in (row.settings | find_rule(row.rule).settings).items():
            by_name.setdefault(name, (setting, []))[1].append(method)
    return by_name


def check_settings(method: str, keep: str, known: dict[str, Setting], given: dict[str, Any]
                   ) -> dict[str, Any]:
    """The values of all known settings, those that are None or not given by their defaults."""
    for name in given.keys() - known.keys():
        _, owners = settings_by_name().get(name, (None, []))
        raise InvalidInput(name, f"not a setting of {method} with the rule {keep}; " + (
            f"it belongs to {', '.join(owners)}" if owners else f"it has {', '.join([*COMMON, *known])}"))
    values = {}
    for name, setting in known.items():
        value = setting.default if given.get(name) is None else given[name]
        values[name] = one_of(value, name, setting.choices) if setting.choices else number(value, name)
    return values


def select(labels: Any, rate: float, *, method: str | None = None, features: Any = None, logits: Any = None,
           dynamics: Any = None, score: Any = None, return_score: bool = False, **options: Any) -> Any:
    """Select a coreset: the positions kept, int64, ascending; with `return_score` also the score.

    What is not given is the method's own: its rule, its quotas, its cut-off. Arrays that the method does not
    need are ignored. Nothing is printed: what a person should know is a warning.

    Args:
        labels: (n,) whole numbers from 0 on, gaps allowed, or strings or booleans. For grand whole numbers
            are columns of the logits, and strings are exactly its k classes, sorted.
        rate: fraction of the images to keep, in (0, 1].
        method: a name in METHODS.
        features: (n, d) floats.
        logits: (n, k) floats.
        dynamics: (epochs, 3, n) floats, as Recorder writes them: p_y, margin, norm(p - y).
        score: (n,) floats, a score of your own instead of `method`.
        return_score: return (positions, score), the score float64 (n,), or None where there is none.
        options: those of `configure`: keep, hard, per_class, hard_cutoff, first_epochs, seed (42), and the
            settings of the method.

    Raises:
        InvalidInput: a ValueError of one line that names the keyword.
    """
    if (method is None) == (score is None):
        raise InvalidInput("method", "pass either a method, or a score of your own as score")
    arrays = {"features": features, "logits": logits, "dynamics": dynamics}
    kept, values = configure(method, rate=rate, **options).select(labels, arrays, score)
    return (kept, values) if return_score else kept


def score_of(selection: Selection, labels: np.ndarray, inputs: dict[str, np.ndarray],
             generator: np.random.Generator) -> np.ndarray:
    """The method's score of each image, float64 (n,); labels are whole numbers (n,)."""
    method = selection.method
    assert method.score is not None
    keywords = {name: inputs[name] for name in method.needs}
    keywords |= {name: selection.settings[name] for name in method.settings}
    return check_score(method.score(labels, generator, **keywords), len(labels), f"score of {selection.name}")


def keep_images(selection: Selection, labels: np.ndarray, size: int, score: np.ndarray | None,
                inputs: dict[str, np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """The positions that the rule keeps by a score, int64 (size,), ascending.

    Raises:
        InvalidInput: the rule keeps another number than `size`, or the cut-off leaves too few images.
    """
    n, method, rule = len(labels), selection.method, selection.rule
    cutoff = selection.hard_cutoff
    if score is None:
        score, order = np.zeros(n), np.arange(n)
    else:
        order = ranking(score, generator) if method.ties_by_seed else np.argsort(score, kind="stable")
    # Positions of each class, or all of them; each group by ascending score.
    groups = [order[group] for group in members_of_classes(labels[order])] if selection.per_class else [order]
    sizes = np.array(list(map(len, groups)))
    if method.cutoff_score:
        margins = method.cutoff_score(labels, generator, dynamics=inputs["dynamics"])
        easy = np.zeros(n, bool)
        easy[cut(ranking(margins, generator), cutoff, "low", size)] = True
        groups, cutoff = [group[easy[group]] for group in groups], 0.0
    budgets = split_budget(sizes, np.array(list(map(len, groups))), size, generator)
    settings = {name: selection.settings[name] for name in rule.settings}
    candidates = []
    for group, budget in zip(groups, budgets, strict=True):
        left = cut(group, cutoff, method.hard, budget)
        candidates.append(Candidates(np.sort(left), left, score, method.hard, inputs, settings, generator))

    def select_all(select_some: Callable[[Candidates, int], np.ndarray]) -> np.ndarray:
        return np.sort(np.concatenate([select_some(group, budget)
                                       for group, budget in zip(candidates, budgets, strict=True) if budget]))

    if rule.compares:
        kept = rule.select(select_all, labels, inputs, method.hard)
    else:
        kept = select_all(rule.select)
    if len(kept) != size:
        raise InvalidInput("rate", f"the rule {selection.keep} keeps {len(kept)} images where {size} are "
                           "asked for; choose another rate")
    return kept.astype(np.int64)


def split_budget(sizes: np.ndarray, room: np.ndarray, size: int, generator: np.random.Generator
                 ) -> np.ndarray:
    """Parts of `size` in proportion to `sizes`, rounded by largest remainders, equal ones in random order.

    No part is larger than its `room`; what does not fit is split among the others. Each class with room gets
    one image or more where `size` allows it.
    """
    parts, remainders = np.divmod(size * sizes, sizes.sum())
    parts[ranking(remainders, generator)[len(parts) - (size - parts.sum()):]] += 1
    full = parts > room
    if full.any():
        parts[full] = room[full]
        parts[~full] = split_budget(sizes[~full], room[~full], size - parts[full].sum(), generator)
    for empty in np.flatnonzero((parts == 0) & (room > 0)):
        if parts.max() > 1:
            parts[parts.argmax()] -= 1
            parts[empty] += 1
    return parts


def cut(order: np.ndarray, fraction: float, hard: str, size: int) -> np.ndarray:
    """What is left of `order`, positions by ascending score, without a fraction at the hard end.

    Raises:
        InvalidInput: it is fewer than `size`.
    """
    n = len(order)
    # The release's rounding of a rate may keep one more: a rate of 1 - fraction is to work for every n.
    left = max(n - round(fraction * n), coreset_size(n, 1 - fraction))
    if left < size < (1 - fraction) * n + 1:
        left = size
    if left < size:
        raise InvalidInput("hard_cutoff", f"{fraction:g} leaves {left} of {n} images, {size} are to be kept; "
                           "choose a smaller one or a smaller rate")
    return order[n - left:] if hard == "low" else order[:left]


# What a person should know

def warn_of_ties(selection: Selection, score: np.ndarray, kept: np.ndarray) -> None:
    """Warn where a large part of the coreset is a draw among images of one score."""
    values, positions = np.unique(score, return_inverse=True)
    inside, all_of_value = np.bincount(positions[kept], minlength=len(values)), np.bincount(positions)
    torn = np.where(inside < all_of_value, inside, 0)
    by_rank = selection.rule.any_score and not selection.rule.draws
    if torn.max() > TIE * len(kept) and (by_rank or len(values) == 1):
        most = torn.argmax()
        drawn = "drawn by the seed" if selection.method.ties_by_seed else "taken by their order"
        warnings.warn(f"{selection.name}: {torn[most]} of the {len(kept)} images kept are {drawn} from the "
                      f"{all_of_value[most]} with the score {values[most]:g}", SelectionWarning, stacklevel=4)


def warn_of_classes(selection: Selection, labels: np.ndarray, kept: np.ndarray,
                    names: Sequence[str] | np.ndarray | None) -> None:
    """Warn where a class has none of the images kept, or under a quarter of its fair number."""
    present, sizes = np.unique(labels, return_counts=True)
    counts = np.bincount(np.searchsorted(present, labels[kept]), minlength=len(present))
    few = np.flatnonzero((counts < FEW * len(kept) / len(labels) * sizes) | (counts == 0))
    if len(few):
        few = few[np.argsort(counts[few] / sizes[few], kind="stable")]
        shown = [f"{present[i] if names is None else names[present[i]]}: {counts[i]} of {sizes[i]}"
                 for i in few[:5]]
        shown += [f"{len(few) - 5} more"] if len(few) > 5 else []
        advice = "" if selection.per_class else "; per_class keeps the same fraction of each"
        warnings.warn(f"classes that keep none or under a quarter of their share: {len(few)} of "
                      f"{len(present)} ({', '.join(shown)}){advice}", SelectionWarning, stacklevel=4)
