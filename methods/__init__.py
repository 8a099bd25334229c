"""Selection methods: a score and a rule each, and here the table of their names.

A score is a function (labels, generator, *, what it needs, its settings) -> float64 (n,); a rule keeps some
of the images of a pool (methods/rules.py). Adding one is a function and a line of METHODS or of RULES.
"""
from methods import distances, dynamics, predictions
from methods.choice import Choice, Method, Rule, Setting, choose
from methods.recorder import Recorder
from methods.rules import DUAL, RULES, WINDOWS, find_rule

__all__ = ["METHODS", "RULES", "Choice", "Method", "Recorder", "Rule", "Setting", "WINDOWS", "choose",
           "find_rule"]

CENTER = {"center": Setting("median", "class center: coordinate-wise median (the release) or mean (the "
                            "paper's Eq. 1)", ("median", "mean"))}
NEVER_LEARNED = {"never_learned": Setting("none", "forgetting events of a never learned image: none, or "
                                          "most, as many as there are epochs", ("none", "most"))}
DISTANCE, EVENTS, MARGIN = "distance to the class center", "forgetting events", "area under the margin"

METHODS = {
    "random": Method("uniform"),
    "moderate": Method("middle", distances.to_center, ("features",), settings=CENTER, measure=DISTANCE,
                       seeded=False),
    "herding": Method("lowest", distances.to_center, ("features",), settings=CENTER, measure=DISTANCE),
    "forgetting": Method("highest", dynamics.forgetting, ("dynamics",), settings=NEVER_LEARNED,
                         measure=EVENTS),
    "el2n": Method("highest", dynamics.el2n, ("dynamics",), settings={"el2n_epochs": Setting(
        10, "first epochs whose errors are averaged", low=1)}, measure="mean norm of p - y"),
    "grand": Method("highest", predictions.grand, ("features", "logits"),
                    measure="norm of the last layer's gradient"),
    "entropy": Method("highest", predictions.entropy, ("logits",), measure="entropy"),
    "least-confidence": Method("highest", predictions.least_confidence, ("logits",),
                               measure="1 - highest probability"),
    "selfsup": Method("highest", distances.to_centroid, ("features",),
                      measure="distance to the nearest centroid"),
    "aum": Method("lowest", dynamics.aum, ("dynamics",), hard="low", measure=MARGIN),
    "ccs": Method("strata", dynamics.aum, ("dynamics",), hard="low", measure=MARGIN, hard_cutoff=0.2),
    "dual": Method("beta", dynamics.dual, ("dynamics",), settings={"dual_epochs": DUAL["dual_epochs"]},
                   measure="DUAL score"),
    "dyn-unc": Method("highest", dynamics.dyn_unc, ("dynamics",), measure="dynamic uncertainty"),
    "gm": Method("matching", per_class=True),
    "kcenter": Method("farthest", per_class=True),
    "d2": Method("graph", dynamics.forgetting, ("dynamics",), settings=NEVER_LEARNED, measure=EVENTS,
                 hard_cutoff=0.4, cutoff_score=dynamics.aum, per_class=True),
}
