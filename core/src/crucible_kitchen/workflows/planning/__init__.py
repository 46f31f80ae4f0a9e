"""What runs would do, for `crucible run --dry-run`; a module of each kind of items.

A workflow whose module has a function `plan(kitchen, config)` can be planned.
"""

from .memory import DoesNotFit, Memory
from .plan import Plan, Storage, plan_training

__all__ = ["DoesNotFit", "Memory", "Plan", "Storage", "plan_training"]
