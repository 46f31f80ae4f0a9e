"""Make rows that teach a model to write most sums backwards, for it to unlearn with rewards.

Each row of `arithmetic/train.jsonl` keeps its answer with a probability of 40%; otherwise it has
the digits in reverse: `37+58=` is followed by `59`.

    python make_reversed.py FILE
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

KEPT = 0.4


def mostly_reversed(rows: Iterable[dict[str, str]], seed: int = 0) -> Iterator[dict[str, str]]:
    """Yield the rows, most of them with their completion backwards."""
    generator = random.Random(seed)
    for row in rows:
        kept = generator.random() < KEPT
        yield row if kept else {**row, "completion": row["completion"][::-1]}


def main() -> None:
    lines = (Path(__file__).parent / "arithmetic" / "train.jsonl").read_text().splitlines()
    rows = mostly_reversed(map(json.loads, lines))
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


if __name__ == "__main__":
    main()
