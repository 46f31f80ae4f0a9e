"""Make the addition data set: `{"prompt": "37+58=", "completion": "95"}` in each row.

Both operands go from 10 to 99, so there are 8,100 rows, of 4,095 unordered pairs {a, b}. The
split is by unordered pair: a model that saw 37+58 in training knows 58+37. 500 pairs, chosen
by a seeded shuffle, are held out. Each gives one row to test, in an orientation drawn by the same
generator; every row of the other pairs is for training. 13 of the held-out pairs are doubles
(a = b), which have one orientation only, so 7,113 rows are left for training.

    python make_arithmetic.py [--check] [FOLDER]

writes FOLDER/train.jsonl and FOLDER/test.jsonl. With --check it writes nothing, and fails unless
they are, byte for byte, what it would write.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

OPERANDS = range(10, 100)
HELD_OUT_PAIRS = 500
SEED = 19  # the smallest with 13 doubles among the held-out pairs (11 are expected), see above

Pair = tuple[int, int]


def split() -> tuple[list[Pair], list[Pair]]:
    """Return the operands of the training rows and of the test rows, each in a random order."""
    generator = random.Random(SEED)
    pairs = [(a, b) for a in OPERANDS for b in OPERANDS if a <= b]
    generator.shuffle(pairs)
    held_out, kept = pairs[:HELD_OUT_PAIRS], pairs[HELD_OUT_PAIRS:]
    test = [pair if generator.random() < 0.5 else pair[::-1] for pair in held_out]
    train = [row for a, b in kept for row in sorted({(a, b), (b, a)})]
    generator.shuffle(train)
    return train, test


def encode(rows: Iterable[Pair]) -> bytes:
    """Return the rows as JSON lines."""
    lines = (json.dumps({"prompt": f"{a}+{b}=", "completion": str(a + b)}) for a, b in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the addition data set.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(__file__).parent / "arithmetic"
    )
    arguments = parser.parse_args()
    train, test = split()
    for name, rows in (("train", train), ("test", test)):
        path = arguments.folder / f"{name}.jsonl"
        if arguments.check:
            if not path.is_file() or path.read_bytes() != encode(rows):
                print(f"{path} is not what this script makes; run it without --check")
                return 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
