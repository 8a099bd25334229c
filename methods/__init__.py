"""Selection methods: one file per family, and here the table of their names.

A method is a function (labels, size, generator, *, what it needs, its settings) -> Choice:
    labels: (n,), whole numbers; gaps and classes of one image are fine.
    size: how many images to keep, 1 to n.
    generator: for everything random.
"""
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from methods import distances, dynamics, gradients, sets
from methods.choice import Choice


@dataclass(frozen=True)
class Setting:
    """An option of selection.py that belongs to methods.

    Args:
        default: its value, the default of the method's keyword argument too.
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
class Method:
    """A selection method.

    Args:
        choose: the function.
        needs: its keyword arguments beside the settings, of "features", "logits" and "dynamics".
        settings: its options, by the names of its keyword arguments.
        score: what its score is, for the axis of a picture; "": it has none.
        seeded: whether it draws from the generator, if only to break ties.
    """
    choose: Callable[..., Choice]
    needs: tuple[str, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict)
    score: str = ""
    seeded: bool = True


CENTER = {"center": Setting("median", "class center: coordinate-wise median (the release) or mean (the "
                            "paper's Eq. 1)", tuple(distances.CENTERS))}
DISTANCE = "distance to the class center"

METHODS = {
    "random": Method(sets.uniform),
    "moderate": Method(distances.moderate, ("features",), CENTER, DISTANCE, seeded=False),
    "herding": Method(distances.herding, ("features",), CENTER, DISTANCE),
    "forgetting": Method(dynamics.forgetting, ("dynamics",), score="forgetting events"),
    "el2n": Method(dynamics.el2n, ("dynamics",),
                   {"el2n_epochs": Setting(10, "first epochs whose errors are averaged", low=1)},
                   "mean norm of p - y"),
    "grand": Method(gradients.grand, ("features", "logits"), score="norm of the last layer's gradient"),
    "selfsup": Method(distances.selfsup, ("features",), score="distance to the nearest centroid"),
    "gm": Method(sets.gm, ("features",),
                 {"gm_length": Setting("unit", "features as they are or scaled to length 1",
                                       ("as-is", "unit"))}),
    "ccs": Method(dynamics.ccs, ("dynamics",),
                  {"hard_cutoff": Setting(0.2, "fraction of the images that is dropped first: those of "
                                          "lowest margin, likely mislabelled", high=1)},
                  "area under the margin"),
    "dual": Method(dynamics.dual, ("dynamics",), score="DUAL score"),
    "dyn-unc": Method(dynamics.dyn_unc, ("dynamics",), score="dynamic uncertainty"),
}
