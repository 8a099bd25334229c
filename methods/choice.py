"""How a coreset is chosen: a score for each image, and a rule that keeps some of them."""
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from methods.pieces import members_of_classes
from utils.errors import BadInput


@dataclass(frozen=True)
class Choice:
    """A coreset.

    Args:
        kept: positions of its images, int64 (size,), ascending.
        score: float64 (n,), one per image; None: the method has none.
    """
    kept: np.ndarray
    score: np.ndarray | None = None


@dataclass(frozen=True)
class Setting:
    """An option of selection.py that belongs to scores or rules.

    Args:
        default: its value, for a score the default of the function's keyword argument too.
        help: what it does.
        choices: its values, if it is a word.
        low, high: the range of its values, if it is a number, a whole one where `default` is.
    """
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = float("inf")


@dataclass(frozen=True)
class Pool:
    """The images that a rule chooses from: all of the data set, or those of a class.

    Args:
        positions: int64, ascending.
        order: the same positions by ascending score; as `positions` where there is no score.
        score: float64 (n,), of all images of the data set; zeros where there is none.
        evidence: what the rule needs of all images, by name.
        settings: the rule's, by name.
        generator: for everything random.
    """
    positions: np.ndarray
    order: np.ndarray
    score: np.ndarray
    evidence: dict[str, np.ndarray]
    settings: dict[str, Any]
    generator: np.random.Generator


@dataclass(frozen=True)
class Rule:
    """What is kept of a pool.

    Args:
        keep: (pool, size) -> positions of the `size` images that are kept, in any order; with `compares`,
            (select, labels, evidence) -> the same, where `select` maps a `keep` of the first kind to the
            positions that it keeps of all pools.
        needs: evidence beside the score, of "features", "logits" and "dynamics".
        settings: its options, by name.
        any_score: whether --keep may name it, for every method with a score.
        draws: whether it draws from the generator.
        compares: whether it compares other rules.
    """
    keep: Callable[..., np.ndarray]
    needs: tuple[str, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict)
    any_score: bool = False
    draws: bool = False
    compares: bool = False


@dataclass(frozen=True)
class Method:
    """A selection method: a score, and its usual rule.

    Args:
        keep: name of the rule, in RULES.
        score: (labels, generator, *, what it needs, its settings) -> float64 (n,); None: there is none.
        needs: the score's keyword arguments beside the settings, of "features", "logits" and "dynamics".
        hard: the end of the score at which the hard images are, "low" or "high".
        settings: the score's options, by the names of its keyword arguments.
        measure: what the score is, for the axis of a picture.
        hard_cutoff: fraction of the images that is dropped first, at the hard end.
        cutoff_score: (labels, generator, *, dynamics) -> float64 (n,), low for hard images, by which those
            are dropped, of all classes together; None: by `score`, inside each class where the rule is.
        per_class: whether the rule works inside each class.
        seeded: whether ties of the score are broken by the generator; else they go by id.
    """
    keep: str
    score: Callable[..., np.ndarray] | None = None
    needs: tuple[str, ...] = ()
    hard: str = "high"
    settings: dict[str, Setting] = field(default_factory=dict)
    measure: str = ""
    hard_cutoff: float = 0.0
    cutoff_score: Callable[..., np.ndarray] | None = None
    per_class: bool = False
    seeded: bool = True


def coreset_size(n: int, rate: float) -> int:
    """Images in a coreset of n * rate, with the release's rounding: for some n one more or less."""
    return round(n * (0.5 + rate / 2)) - round(n * (0.5 - rate / 2))


def ranking(score: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Ids by ascending score, ties in random order, int64 (n,).

    Many scores are counts: ties by id would drop whole classes of a data set that is sorted by class.
    """
    return np.lexsort((generator.permutation(len(score)), score))


def choose(method: Method, rule: Rule, labels: np.ndarray, size: int, generator: np.random.Generator,
           evidence: dict[str, np.ndarray], per_class: bool = False, hard_cutoff: float = 0.0,
           **settings: Any) -> Choice:
    """Score all images and let a rule keep some of them.

    Args:
        labels: (n,), whole numbers; gaps and classes of one image are fine.
        size: how many images to keep, 1 to n.
        evidence: what the score and the rule need, by name.
        per_class, hard_cutoff: as in Method; with per_class the same fraction of each class is kept.
        settings: of the score and the rule, where they are not the defaults.

    Raises:
        BadInput: the rule keeps another number than `size`, or the cut-off leaves too few images.
    """
    n = len(labels)
    score, order = np.zeros(n), np.arange(n)
    if method.score:
        score = method.score(labels, generator, **{need: evidence[need] for need in method.needs},
                             **{name: settings[name] for name in method.settings if name in settings})
        order = ranking(score, generator) if method.seeded else np.argsort(score, kind="stable")
    # Positions of each class, or all of them; each group by ascending score.
    groups = [order[group] for group in members_of_classes(labels[order])] if per_class else [order]
    sizes = np.array(list(map(len, groups)))
    if method.cutoff_score:
        by_margin = ranking(method.cutoff_score(labels, generator, dynamics=evidence["dynamics"]), generator)
        easy = np.zeros(n, bool)
        easy[cut(by_margin, hard_cutoff, "low", size)] = True
        groups, hard_cutoff = [group[easy[group]] for group in groups], 0.0
    budgets = split_budget(sizes, np.array(list(map(len, groups))), size, generator)
    values = {name: settings.get(name, setting.default) for name, setting in rule.settings.items()}
    pools = []
    for group, budget in zip(groups, budgets, strict=True):
        left = cut(group, hard_cutoff, method.hard, budget)
        pools.append(Pool(np.sort(left), left, score, evidence, values, generator))

    def select(keep: Callable[[Pool, int], np.ndarray]) -> np.ndarray:
        return np.sort(np.concatenate([keep(pool, budget) for pool, budget in zip(pools, budgets, strict=True)
                                       if budget]))

    kept = rule.keep(select, labels, evidence) if rule.compares else select(rule.keep)
    if len(kept) != size:
        raise BadInput(f"--rate: the rule keeps {len(kept)} images where {size} are asked for; name another "
                       "rate")
    return Choice(kept, score if method.score else None)


def split_budget(sizes: np.ndarray, room: np.ndarray, size: int, generator: np.random.Generator
                 ) -> np.ndarray:
    """Parts of `size` in proportion to `sizes`, rounded by largest remainders, equal ones in random order.

    No part is larger than its `room`; what does not fit is split among the others.
    """
    parts, remainders = np.divmod(size * sizes, sizes.sum())
    parts[ranking(remainders, generator)[len(parts) - (size - parts.sum()):]] += 1
    full = parts > room
    if full.any():
        parts[full] = room[full]
        parts[~full] = split_budget(sizes[~full], room[~full], size - parts[full].sum(), generator)
    return parts


def cut(order: np.ndarray, fraction: float, hard: str, size: int) -> np.ndarray:
    """What is left of `order`, positions by ascending score, without a fraction at the hard end.

    Raises:
        BadInput: it is fewer than `size`.
    """
    n = len(order)
    # The rounding of a rate may keep one more: a rate of 1 - fraction is to work for every n.
    left = max(n - round(fraction * n), coreset_size(n, 1 - fraction))
    if left < size < (1 - fraction) * n + 1:
        left = size
    if left < size:
        raise BadInput(f"--hard_cutoff {fraction:g}: leaves {left} of {n} images, {size} are to be kept; "
                       "name a smaller one, or a smaller --rate")
    return order[n - left:] if hard == "low" else order[:left]
