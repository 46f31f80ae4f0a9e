"""Rows: which there are, what shape they have, and the token sequences that they become.

| module | what is in it |
| --- | --- |
| `prepare` | `prepare_rows`: the rows of a run |
| `loading`, `splits` | which rows a configuration names, and where they are |
| `stored` | rows that stay where the dataset store has them |
| `examples` | the shape of a row |
| `pairs` | the shape of a row that holds a chosen and a rejected answer |
| `rendering` | token sequences with a weight for each token |
| `layout` | where answers are in conversations of a kind, so that each is rendered once |
| `judge` | which of them can be trained on |
| `sequences` | rendered sequences as flat arrays |
| `cache`, `key` | rendered rows that are kept, and under which key |
| `ahead` | batches that are rendered ahead of the step that needs them |
| `first_rows` | the first rows alone, to look at |
"""
