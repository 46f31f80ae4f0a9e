"""Problems: what a model is asked while it learns from rewards, and in which order.

| module | idea |
| --- | --- |
| `prepare` | the problems of a configuration: of an environment, or of a data set with a reward |
| `rewards` | a row with a reward function, as an environment of one turn |
| `pool` | environments that are lent, and closed at the end |
"""
