"""Make the data set of conversations from GSM8K, Grade School Math.

GSM8K (Cobbe et al., "Training Verifiers to Solve Math Word Problems", arXiv 2110.14168; copyright
(c) 2021 OpenAI, MIT licence) marks each calculation of a solution, `<<48/2=24>>`, and ends it with
the result, `#### 72`. A conversation is made from these marks alone, without the problem's text:

    user: 48/2 = ?            assistant: 24
    user: 48+24 = ?           assistant: 72
    user: And the answer?     assistant: 72

Solutions with two to four calculations are used, each of two whole numbers of at most two digits
with such a result, if the last one is the answer. GSM8K's training problems are for training, its
test problems are held out. A conversation comes once, and no held-out one is trained on.

    python make_chat.py GSM8K [FOLDER]

reads GSM8K/train.jsonl and GSM8K/test.jsonl, and writes FOLDER/train.jsonl and FOLDER/test.jsonl.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

CALCULATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
NUMBER = r"\d{1,2}"
STEPS = range(2, 5)

Message = dict[str, str]


def conversation(solution: str) -> list[Message] | None:
    """Return the turns of a solution, or None where it is not one of those described above."""
    steps = CALCULATION.findall(solution)
    answer = solution.rpartition("#### ")[2].strip()
    simple = all(
        re.fullmatch(f"{NUMBER}[-+*/]{NUMBER}", sum_) and re.fullmatch(NUMBER, result)
        for sum_, result in steps
    )
    if len(steps) not in STEPS or not simple or steps[-1][1] != answer:
        return None
    turns = [(f"{sum_} = ?", result) for sum_, result in steps] + [("And the answer?", answer)]
    return [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]


def lines(problems: Iterable[str]) -> Iterator[str]:
    """Return the rows of a file of problems, as JSON lines."""
    for problem in problems:
        messages = conversation(json.loads(problem)["answer"])
        if messages is not None:
            yield json.dumps({"messages": messages}) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the data set of conversations.")
    parser.add_argument("gsm8k", type=Path, help="folder of GSM8K's train.jsonl and test.jsonl")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "chat")
    arguments = parser.parse_args()
    made: set[str] = set()
    for split in ("test", "train"):  # what is held out goes first, and is not trained on
        with open(arguments.gsm8k / f"{split}.jsonl", encoding="utf-8") as problems:
            rows = [row for row in dict.fromkeys(lines(problems)) if row not in made]
        made.update(rows)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        (arguments.folder / f"{split}.jsonl").write_bytes("".join(rows).encode())


if __name__ == "__main__":
    main()
