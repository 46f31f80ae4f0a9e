"""Whether the same training steps give the same numbers on several backends.

| module | what is in it |
| --- | --- |
| `comparing` | `compare`: a workflow's first steps, on several training clients |
| `recorder` | a training client around another one that writes down the steps a workflow takes |
| `scratch` | stores that keep what such a run writes in memory |
| `steps` | a step as it is submitted, and what a backend answers to it |
| `comparison` | `Report`: how far the answers are apart |
| `tolerances` | how far they may be |
"""

from .comparing import STEPS, compare, compare_in
from .comparison import Backend, Compared, Difference, Report
from .steps import Measured, Pass, Step
from .tolerances import Tolerances

__all__ = [
    "STEPS",
    "Backend",
    "Compared",
    "Difference",
    "Measured",
    "Pass",
    "Report",
    "Step",
    "Tolerances",
    "compare",
    "compare_in",
]
