"""The selection methods by name: a score, the arrays that it needs, and the method's usual rule."""
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import distances, dynamics, predictions
from .rules import Setting


@dataclass(frozen=True)
class Method:
    """A selection method: a score and its usual rule.

    Args:
        rule: name of the rule, in RULES, or the difficulty at which the window lies, such as "0.3".
        score: (labels, generator, *, arrays that it needs, its settings) -> float (n,); None: it has none.
        needs: the score's arrays, of "features", "logits" and "dynamics".
        hard: the end of the score at which the hard images are, "low" or "high"; for dual and dyn-unc the
            uncertain ones.
        settings: the score's options, by the names of its keyword arguments.
        measure: what the score is, for the axis of a figure.
        per_class: whether the rule works inside each class and keeps the same fraction of each.
        hard_cutoff: fraction of the images that is dropped first, at the hard end.
        cutoff_score: (labels, generator, *, dynamics) -> float (n,), low for hard images, by which those
            are dropped, of all classes together; None: by `score`, inside each class where the rule is.
        first_epochs: how many of the first epochs of the dynamics are used; None: all.
        ties_by_seed: whether ties of the score are broken by the seed; else they go by position.
        labels_are_columns: whether the score takes labels for columns of the logits.
    """
    rule: str
    score: Callable[..., np.ndarray] | None = None
    needs: tuple[str, ...] = ()
    hard: str = "high"
    settings: dict[str, Setting] = field(default_factory=dict)
    measure: str = ""
    per_class: bool = False
    hard_cutoff: float = 0.0
    cutoff_score: Callable[..., np.ndarray] | None = None
    first_epochs: int | None = None
    ties_by_seed: bool = True
    labels_are_columns: bool = False


CENTER = {"center": Setting("median", "class center: coordinate-wise median (the release) or mean (the "
                            "paper's Eq. 1)", ("median", "mean"))}
NEVER_LEARNED = {"never_learned": Setting("zero", "forgetting events of an image that was never learned: "
                                          "zero, or max, as many as there are epochs", ("zero", "max"))}
DISTANCE, EVENTS, MARGIN = "distance to the class center", "forgetting events", "area under the margin"

METHODS = {
    "random": Method("uniform"),
    "moderate": Method("middle", distances.distance_to_class_center, ("features",), settings=CENTER,
                       measure=DISTANCE, ties_by_seed=False),
    "herding": Method("easiest", distances.distance_to_class_center, ("features",), settings=CENTER,
                      measure=DISTANCE),
    "forgetting": Method("hardest", dynamics.forgetting, ("dynamics",), settings=NEVER_LEARNED,
                         measure=EVENTS),
    "el2n": Method("hardest", dynamics.el2n, ("dynamics",), measure="mean norm of p - y", first_epochs=10),
    "grand": Method("hardest", predictions.grand, ("features", "logits"),
                    measure="norm of the last layer's gradient", labels_are_columns=True),
    "entropy": Method("hardest", predictions.entropy, ("logits",), measure="entropy"),
    "least-confidence": Method("hardest", predictions.least_confidence, ("logits",),
                               measure="1 - highest probability"),
    "selfsup": Method("hardest", distances.distance_to_nearest_centroid, ("features",),
                      measure="distance to the nearest centroid"),
    # Pleiss et al. name no rule: they look for wrong labels. This window leads in docs/results.md.
    "aum": Method("0.3", dynamics.aum, ("dynamics",), hard="low", measure=MARGIN, per_class=True),
    "ccs": Method("strata", dynamics.aum, ("dynamics",), hard="low", measure=MARGIN, hard_cutoff=0.2),
    "dual": Method("beta", dynamics.dual, ("dynamics",), measure="DUAL score", first_epochs=30),
    "dyn-unc": Method("hardest", dynamics.dyn_unc, ("dynamics",), measure="dynamic uncertainty"),
    "gm": Method("gm_matching", per_class=True),
    "kcenter": Method("k_center_greedy", per_class=True),
    "d2": Method("message_passing", dynamics.forgetting, ("dynamics",), settings=NEVER_LEARNED,
                 measure=EVENTS, per_class=True, hard_cutoff=0.4, cutoff_score=dynamics.aum),
}
