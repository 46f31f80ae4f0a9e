"""Losses of a training step, beyond those that training clients know.

| module | idea |
| --- | --- |
| `custom_loss` | any function of the token log probabilities, on every backend |
| `advantages` | how much better than its group an episode is |
| `policy_gradient` | the settings, updates and metrics of a policy gradient |
"""
