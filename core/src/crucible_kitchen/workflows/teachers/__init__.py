"""Teachers: models whose log probabilities or samples a student learns from.

| module | idea |
| --- | --- |
| `teacher` | a completer that scores, or a second training client |
| `samples` | what a teacher said at the start of a run, kept with the run |
| `teaching` | a teacher and a student on the same problems |
"""
