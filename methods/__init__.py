"""Coreset selection for any training run of any framework: NumPy alone, nothing else of this project.

    from methods import select
    kept = select(labels, rate=0.2, method="aum", dynamics=dynamics)

`select` returns the positions kept; `Recorder` records the dynamics of a training loop. METHODS (table.py) is
the table of the methods, RULES (rules.py) that of the rules. The folder can be copied into another project.
"""
from .checks import InvalidInput
from .recorder import Recorder
from .rules import RULES, Candidates, Rule, Setting
from .select import Selection, SelectionWarning, configure, select
from .table import METHODS, Method

__all__ = ["METHODS", "RULES", "Candidates", "InvalidInput", "Method", "Recorder", "Rule", "Selection",
           "SelectionWarning", "Setting", "configure", "select"]
