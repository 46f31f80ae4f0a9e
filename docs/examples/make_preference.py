"""Make the data set of pairs: `{"prompt": "37+58=", "chosen": "95", "rejected": "83"}` in each row.

The prompts and the chosen answers are the first rows of the addition data set, which
make_arithmetic.py makes; an answer that is rejected is the sum of the next row that has another.
So answers are right or wrong, and nothing else tells them apart, except that the right one fits.

    python make_preference.py [--check] [FOLDER]

reads arithmetic/train.jsonl and arithmetic/test.jsonl next to this file, and writes
FOLDER/train.jsonl and FOLDER/test.jsonl. With --check it writes nothing, and fails unless they are,
byte for byte, what it would write.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROWS = {"train": 2000, "test": 200}


def pairs(lines: list[str], count: int) -> bytes:
    """Return `count` pairs as JSON lines."""
    sums = [json.loads(line) for line in lines]
    made = []
    for place, row in enumerate(sums[:count]):
        right = row["completion"]
        wrong = next(r["completion"] for r in sums[place:] if r["completion"] != right)
        made.append({"prompt": row["prompt"], "chosen": right, "rejected": wrong})
    return "".join(f"{json.dumps(pair)}\n" for pair in made).encode()


def main() -> int:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Make the data set of pairs.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    parser.add_argument("folder", nargs="?", type=Path, default=here / "preference")
    arguments = parser.parse_args()
    for name, count in ROWS.items():
        lines = (here / "arithmetic" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        made, path = pairs(lines, count), arguments.folder / f"{name}.jsonl"
        if arguments.check:
            if not path.is_file() or path.read_bytes() != made:
                print(f"{path} is not what this script makes; run it without --check")
                return 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
