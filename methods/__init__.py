"""Selection methods: one file a family, and here the table of their names.

A method is a function (labels, number, generator, *, what it needs, its settings) -> Choice:
    labels: (n,), whole numbers; gaps and classes of one image are fine.
    number: how many images to keep, 1 to n.
    generator: of everything random.
"""
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from methods import choice, distances, dynamics, gradients, matching
from methods.choice import Choice
from utils.options import fraction, positive


@dataclass(frozen=True)
class Setting:
    """An option of selection.py that belongs to methods.

    Args:
        default: its value, the default of the method's keyword argument too.
        parse: makes the value from the command line's text, or raises argparse.ArgumentTypeError.
        help: what it does.
        choices: its values; (): any that `parse` takes.
    """
    default: Any
    parse: Callable[[str], Any]
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A selection method.

    Args:
        choose: the function.
        needs: its keyword arguments beside the settings, of "features", "logits" and "dynamics".
        settings: its options, by the names of its keyword arguments.
        score: what its score is, for the axis of a picture; "": it has none.
        seeded: whether it draws from the generator, ties among it.
    """
    choose: Callable[..., Choice]
    needs: tuple[str, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict)
    score: str = ""
    seeded: bool = True


CENTER = {"center": Setting("median", str, "class center: coordinate-wise median (the release) or mean (the "
                            "paper's Eq. 1)", tuple(distances.CENTERS))}
DISTANCE = "distance to the class center"

METHODS = {
    "random": Method(choice.uniform),
    "moderate": Method(distances.moderate, ("features",), CENTER, DISTANCE, seeded=False),
    "herding": Method(distances.herding, ("features",), CENTER, DISTANCE),
    "forgetting": Method(dynamics.forgetting, ("dynamics",), score="forgetting events"),
    "el2n": Method(dynamics.el2n, ("dynamics",),
                   {"el2n_epochs": Setting(10, positive, "first epochs whose errors are averaged")},
                   "mean norm of p - y"),
    "grand": Method(gradients.grand, ("features", "logits"), score="norm of the last layer's gradient"),
    "selfsup": Method(distances.selfsup, ("features",), score="distance to the nearest centroid"),
    "gm": Method(matching.gm, ("features",),
                 {"gm_scope": Setting("class", str, "match the median of each class, or of all images, which "
                                      "reads the features once a pick", ("class", "global")),
                  "gm_length": Setting("unit", str, "features as they are or scaled to length 1",
                                       ("as-is", "unit"))}),
    "ccs": Method(dynamics.ccs, ("dynamics",),
                  {"hard_cutoff": Setting(0.2, fraction, "fraction of the images that is dropped first: "
                                          "those of lowest margin, likely mislabelled")},
                  "area under the margin"),
    "dual": Method(dynamics.dual, ("dynamics",), score="DUAL score"),
    "dyn-unc": Method(dynamics.dyn_unc, ("dynamics",), score="dynamic uncertainty"),
}
