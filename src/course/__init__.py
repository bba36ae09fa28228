"""What chapters need and services do not: figures, lever panels, tables, exercises.

Everything here returns something that a notebook shows: the same in JupyterLab, in Colab and on the rendered
page, where there is no kernel.
"""

from course.costs import cost_table
from course.exercises import check
from course.experiments import Call, Trial
from course.figures import Figure, bars, heatmap, lines
from course.levers import explore
from course.panels import panels
from course.prose import head, related, say, source
from course.tables import policy_table, runbook, table
from course.waterfalls import waterfall

__all__ = [
    "Call",
    "Figure",
    "Trial",
    "bars",
    "check",
    "cost_table",
    "explore",
    "head",
    "heatmap",
    "lines",
    "panels",
    "policy_table",
    "related",
    "runbook",
    "say",
    "source",
    "table",
    "waterfall",
]
