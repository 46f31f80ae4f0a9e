"""Environments: what a model is asked, and what reward its answers get.

| module | idea |
| --- | --- |
| `environment` | the protocol, and what a step returns |
| `guarded` | an environment whose answers are checked |
| `arithmetic` | sums to work out |
| `final_answer` | the number that an answer ends with: GSM8K's reward |
"""

from .environment import Environment, EnvironmentOptions, Observation, Step

__all__ = ["Environment", "EnvironmentOptions", "Observation", "Step"]
