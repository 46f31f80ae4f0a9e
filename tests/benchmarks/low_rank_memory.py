"""Peak memory of a low-rank session, against Transformers and PEFT by hand.

The model has random weights, 1.1 billion of them (the sizes of TinyLlama), and lies on disk in
bfloat16. Each way loads it in a process of its own, which takes the same two steps on the same row
of 512 tokens, and says by how much its memory grew at most (the kernel's `VmHWM`), after imports.
Both compute in float32, or both under autocast in bfloat16. Weights that are bfloat16 on disk stay
mapped from there, and count as memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .comparison import Goal, Row, at_most
from .settings import Settings, Skipped

GIB = 2**30
LARGE = {
    "hidden_size": 2048,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 5632,
    "vocab_size": 32_000,
}
SMALL = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "vocab_size": 4_000,
}
UNBROKEN = {"MALLOC_MMAP_THRESHOLD_": "1048576"}
"""Large tensors go back to the system where they are freed. glibc would keep many of them, several
hundred MiB in either way, and more or less of them by chance."""
RANK, RATE, STEPS = 16, 1e-3, 2
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Found:
    """What a process found: bytes that its memory grew by at most, and the loss of each step."""

    bytes: int
    losses: list[float]


WAYS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("float32", {"base_dtype": "float32"}, {"weights": "float32"}),
    ("bfloat16", {"dtype": "bfloat16"}, {"weights": "bfloat16"}),
    (
        "bfloat16, gradient checkpointing",
        {"dtype": "bfloat16", "gradient_checkpointing": True},
        {"weights": "bfloat16", "checkpointing": True},
    ),
    (
        "int8, gradient checkpointing",
        {"dtype": "bfloat16", "base_dtype": "int8", "gradient_checkpointing": True},
        {"weights": "bfloat16", "checkpointing": True},
    ),
    (
        "nf4, gradient checkpointing",
        {"dtype": "bfloat16", "base_dtype": "nf4", "gradient_checkpointing": True},
        {"weights": "nf4", "checkpointing": True},
    ),
)
"""What frozen weights are kept in, our options, and what is done by hand."""
NEAR = {"float32": 1e-3, "bfloat16": 0.02}
"""By how much the first losses may differ; what is learned in a step depends on the random update,
which starts from other numbers by hand."""


def rows(settings: Settings) -> Iterator[Row]:
    if sys.platform != "linux":
        raise Skipped("only Linux says how much memory a process took at most")
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder, "model"))
        _in_a_process("make", {"folder": model, "small": settings.small})
        first: Found | None = None
        for name, options, by_hand in WAYS:
            given = {"folder": model, "length": 64 if settings.small else 512}
            what = f"low-rank session, weights in {name}"
            try:
                ours = _found("ours", {**given, "options": options})
                theirs = _found("theirs", {**given, **by_hand})
            except Skipped as reason:
                yield Row(what, f"not measured: {reason}", None, 1, 0, 0, "GiB")
                continue
            first = first or ours
            apart = abs(ours.losses[0] - theirs.losses[0])
            near = NEAR[name.partition(",")[0]] if name.startswith(("float", "bf")) else 0.1
            assert apart <= near, f"{name}: the first losses are {apart} apart"
            against = "Transformers and PEFT by hand, in " + str(by_hand["weights"])
            yield _row_of(what, against, ours, theirs, at_most(1.0), f"{apart:.1g}")
            if ours is not first:
                drift = max(abs(a - b) for a, b in zip(ours.losses, first.losses, strict=True))
                yield _row_of(what, "ours in float32", ours, first, None, f"{drift:.1g}")


def _row_of(
    what: str, against: str, ours: Found, theirs: Found, goal: Goal | None, apart: str
) -> Row:
    sizes = ours.bytes / GIB, theirs.bytes / GIB
    note = f"losses {apart} apart"
    return Row(what, against, goal, sizes[0] / sizes[1], *sizes, "GiB", note)


def _found(way: str, given: Mapping[str, Any]) -> Found:
    return Found(**_in_a_process(way, given))


def _in_a_process(what: str, given: Mapping[str, Any]) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", __name__, what, json.dumps(given)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **UNBROKEN},
        capture_output=True,
        text=True,
    )
    if "bitsandbytes" in done.stderr and done.returncode:
        raise Skipped("bitsandbytes is not installed")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# --- in a process of its own ---


def make(folder: str, small: bool) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(LlamaConfig(**(SMALL if small else LARGE))).save_pretrained(
        folder, max_shard_size="500MB"
    )


def ours(folder: str, length: int, options: Mapping[str, Any]) -> Found:
    import crucible_adapter_torch.training_client as torch_client
    import numpy as np
    import peft  # noqa: F401  here, as by hand, so that it does not count
    import transformers  # noqa: F401
    from crucible_kitchen import Datum, Kitchen, LoraConfig, ModelInput, SessionConfig

    ids = _row(length)
    start = _memory("VmRSS")
    with tempfile.TemporaryDirectory() as checkpoints:
        table = {"use": torch_client, "checkpoint_dir": checkpoints, "device": "cpu", **options}
        with Kitchen(adapters={"training_client": table}) as kitchen:
            client = kitchen.training_client
            lora = LoraConfig(rank=RANK, alpha=RANK)
            session = client.start_session(SessionConfig(folder, lora=lora))
            print(
                "loaded",
                _memory("VmHWM") - start,
                _memory("RssAnon"),
                _memory("RssFile"),
                file=sys.stderr,
            )
            weights = np.full(length, 1 / length, np.float32)
            datum = Datum(
                ModelInput.from_ints(ids[:-1]), {"target_tokens": ids[1:], "weights": weights}
            )
            losses = []
            for _ in range(STEPS):
                loss = client.forward_backward(session, [datum])
                step = client.optim_step(session, RATE)
                losses.append(client.await_(loss).loss)
                client.await_(step)
            return Found(_memory("VmHWM") - start, losses)


def theirs(folder: str, length: int, weights: str, checkpointing: bool = False) -> Found:
    import peft
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    torch.set_num_threads(1)
    ids = _row(length)
    start = _memory("VmRSS")
    dtype = torch.float32 if weights == "float32" else torch.bfloat16
    extra = {}
    if weights == "nf4":
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **extra)
    torch.manual_seed(0)
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config).train()
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})  # warns of its new name
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    tokens = torch.from_numpy(ids)
    losses = []
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            logits = model(input_ids=tokens[None, :-1], use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits.float(), tokens[1:])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return Found(_memory("VmHWM") - start, losses)


def _row(length: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 4_000, length + 1)


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise Skipped(f"the kernel does not say {field}")


if __name__ == "__main__":
    way, given = sys.argv[1], json.loads(sys.argv[2])
    ways: dict[str, Callable[..., Found | None]] = {"make": make, "ours": ours, "theirs": theirs}
    found = ways[way](**given)
    print(json.dumps(found.__dict__ if found else None))
