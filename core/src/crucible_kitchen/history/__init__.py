"""Runs that were, and are: found in the stores, compared, drawn, exported, deleted.

| module | what it does |
| --- | --- |
| `stored` | finds runs in a blob store and a metrics store |
| `curves` | rows of metrics as curves, and which of them a reader wants first |
| `settings` | what two runs do differently |
| `removal` | deletes what belongs to a run |
| `weights` | writes a run's weights to a folder that other programs load |
| `chart` | draws curves as SVG |
| `picture` | draws curves as PNG, with matplotlib |
| `page` | a run, or several, as one HTML file |
"""
