"""With every family's chat template, the answers are trained on, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("crucible_adapter_torch", reason="crucible-adapter-torch is not installed")
pytest.importorskip("trl", reason="trl, which ships the templates, is not installed")

from chat_templates.checks import DATE, check, outcome, runs
from chat_templates.conversations import (
    KINDS,
    LOOKUP_WEATHER,
    Kind,
    Message,
    assistant,
    call,
    system,
    tool,
    user,
)
from chat_templates.families import FAMILIES, MARKED, Family
from chat_templates.page import PAGE, page
from crucible_kitchen import Completion, end_of_turn
from crucible_kitchen.chat import ChatTemplate
from crucible_kitchen.workflows.episodes.transcript import Transcript
from crucible_kitchen.workflows.rows.examples import Conversation, RowReader
from crucible_kitchen.workflows.rows.layout import RARE
from crucible_kitchen.workflows.rows.rendering import Renderer, exactly, marked
from tokenizers import processors

FAMILY = {family.name: family for family in (*FAMILIES, *MARKED)}
KIND = {kind.name: kind for kind in KINDS}
CALL, ANOTHER = call("Ulaanbaatar", "lookup001"), call("Thimphu", "lookup002")


def shown(family: Family, kind: Kind) -> list[str]:
    """Return the text of each sequence of a conversation, its trained parts in brackets."""
    found = outcome(family, kind)
    assert not isinstance(found, str), found
    return [marked(example, family.tokenizer) for example in found]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("family", FAMILY.values(), ids=lambda family: family.name)
def test_answers_and_nothing_else_are_trained_on(family: Family, kind: Kind) -> None:
    found, refused = outcome(family, kind), family.refuses.get(kind.name)
    if refused is not None:
        assert isinstance(found, str)
        assert refused in found
    else:
        assert not isinstance(found, str), found
        check(family, kind, found)


@pytest.mark.parametrize("family", FAMILY.values(), ids=lambda family: family.name)
def test_the_token_that_ends_a_turn_in_training_ends_an_answer_at_inference(family: Family) -> None:
    end = end_of_turn(family.tokenizer)
    assert end is not None
    assert family.tokenizer.decode([end]) == family.end


@pytest.mark.parametrize(
    ("name", "said", "follows"),
    [
        ("Qwen 2.5", "It is four.<|im_end|>", "\n<|im_start|>user\nAnd?<|im_end|>"),
        ("ChatML, base", "It is four.<|endoftext|>", "\n<|im_start|>user\nAnd?<|im_end|>"),
        ("Llama 2", " It is four.</s>", "<s> [INST] And? [/INST]"),
        ("gpt-oss", "It is four.<|return|>", "<|start|>user<|message|>And?<|end|>"),
        (
            "Cohere 2",
            "It is four.<|END_OF_TURN_TOKEN|>",
            "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>And?<|END_OF_TURN_TOKEN|>",
        ),
        ("GLM-4", "It is four.<|user|>", "\nAnd?<|assistant|>"),
        ("GLM-4", "It is four.<|endoftext|>", "<|user|>\nAnd?<|assistant|>"),
    ],
)
def test_in_an_episode_a_turn_that_the_model_has_ended_is_not_ended_again(
    name: str, said: str, follows: str
) -> None:
    template = ChatTemplate(FAMILY[name].tokenizer)
    transcript = Transcript(template)
    transcript.read([user("What is 2 + 2?")])
    tokens = template.tokens.after("<x>", said)
    assert template.tokens.is_special(tokens[-1])
    transcript.say(Completion(said, np.array(tokens), np.zeros(len(tokens), np.float32), "stop"))
    before = len(transcript)
    transcript.read([user("And?")])
    assert template.tokens.decode(transcript.tokens[before:].tolist()).startswith(follows)


def test_the_page_shows_the_current_results() -> None:
    made_by = "python -m tests.workflows.chat_templates.page --write"
    assert PAGE.read_text("utf-8") == page(), made_by


@pytest.mark.parametrize(
    ("family", "kind", "expected"),
    [
        (
            "ChatML, base",
            "several turns",
            [
                "<|im_start|>user\nName a harbour.<|im_end|>\n"
                "<|im_start|>assistant\n⟦Bergen lies north.<|im_end|>⟧\n"
                "<|im_start|>user\nName a meadow.<|im_end|>\n"
                "<|im_start|>assistant\n⟦Runnymede is green.<|im_end|>⟧\n"
            ],
        ),
        (
            "Qwen 3",
            "several turns",
            [
                "<|im_start|>user\nName a harbour.<|im_end|>\n<|im_start|>assistant\n"
                "⟦<think>\n\n</think>\n\nBergen lies north.<|im_end|>⟧\n",
                "<|im_start|>user\nName a harbour.<|im_end|>\n<|im_start|>assistant\n"
                "Bergen lies north.<|im_end|>\n"
                "<|im_start|>user\nName a meadow.<|im_end|>\n<|im_start|>assistant\n"
                "⟦<think>\n\n</think>\n\nRunnymede is green.<|im_end|>⟧\n",
            ],
        ),
        (
            "Qwen 3.5, thinking",
            "one turn",
            [
                "<|im_start|>user\nName a harbour.<|im_end|>\n<|im_start|>assistant\n<think>\n"
                "⟦\n</think>\n\nBergen lies north.<|im_end|>⟧\n"
            ],
        ),
        (
            "DeepSeek R1 Distill",
            "reasoning",
            [
                "<｜begin▁of▁sentence｜><｜User｜>Name a harbour.<｜Assistant｜><think>\n"
                "⟦Ports come to mind\n</think>\n\nBergen lies north.<｜end▁of▁sentence｜>⟧",
                "<｜begin▁of▁sentence｜><｜User｜>Name a harbour.<｜Assistant｜>Bergen lies north."
                "<｜end▁of▁sentence｜><｜User｜>Name a meadow.<｜Assistant｜><think>\n"
                "⟦Pastures, rather\n</think>\n\nRunnymede is green.<｜end▁of▁sentence｜>⟧",
            ],
        ),
        (
            "QwQ",
            "think",
            [
                "<|im_start|>user\nName a harbour.<|im_end|>\n<|im_start|>assistant\n<think>\n"
                "⟦Ports come to mind\n</think>\n\nBergen lies north.<|im_end|>⟧\n",
                "<|im_start|>user\nName a harbour.<|im_end|>\n<|im_start|>assistant\n"
                "Bergen lies north.<|im_end|>\n"
                "<|im_start|>user\nName a meadow.<|im_end|>\n<|im_start|>assistant\n<think>\n"
                "⟦Pastures, rather\n</think>\n\nRunnymede is green.<|im_end|>⟧\n",
            ],
        ),
        (
            "Phi-3",
            "several turns",
            [
                "<|user|>\nName a harbour.<|end|>\n<|assistant|>\n⟦Bergen lies north.<|end|>⟧\n"
                "<|user|>\nName a meadow.<|end|>\n<|assistant|>\n"
                "⟦Runnymede is green.<|end|>⟧\n<|endoftext|>"
            ],
        ),
        (
            "Gemma 3",
            "system",
            [
                "<bos><start_of_turn>user\nBe brief, captain.\n\nName a harbour.<end_of_turn>\n"
                "<start_of_turn>model\n⟦Bergen lies north.<end_of_turn>⟧\n"
                "<start_of_turn>user\nName a meadow.<end_of_turn>\n"
                "<start_of_turn>model\n⟦Runnymede is green.<end_of_turn>⟧\n"
            ],
        ),
        (
            "GLM-4.5",
            "several turns",
            [
                "[gMASK]<sop><|user|>\nName a harbour.<|assistant|>"
                "⟦\n<think></think>\nBergen lies north.<|user|>⟧\nName a meadow.<|assistant|>"
                "⟦\n<think></think>\nRunnymede is green.<|user|>⟧"
            ],
        ),
        (
            "Mistral",
            "system",
            [
                "<s>[INST] Be brief, captain.\n\nName a harbour.[/INST]⟦ Bergen lies north.</s>⟧",
                "<s>[INST] Name a harbour.[/INST] Bergen lies north.</s>"
                "[INST] Be brief, captain.\n\nName a meadow.[/INST]⟦ Runnymede is green.</s>⟧",
            ],
        ),
        (
            "Mistral, SentencePiece",
            "one turn",
            ["<s>[INST]  Name a harbour.[/INST]⟦ Bergen lies north.</s>⟧"],
        ),
        (
            "Alpaca",
            "one turn",
            ["### Instruction:\nName a harbour.\n\n### Response:\n⟦Bergen lies north.\n\n</s>⟧"],
        ),
        (
            "Llama 3",
            "last answer only",
            [
                "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
                "Name a harbour.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
                "Bergen lies north.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
                "Name a meadow.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
                "Runnymede is green.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
                "Name a glacier.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
                "⟦Aletsch is long.<|eot_id|>⟧"
            ],
        ),
        (
            "SmolVLM, marked",
            "one turn",
            [
                "<|im_start|>User: Name a harbour.<end_of_utterance>\n"
                "Assistant:⟦ Bergen lies north.<end_of_utterance>⟧\n"
            ],
        ),
        (
            "Qwen 3, marked",
            "several turns",
            [
                "<|im_start|>user\nName a harbour.<|im_end|>\n<|im_start|>assistant\n"
                "⟦<think>\n\n</think>\n\nBergen lies north.<|im_end|>⟧\n"
                "<|im_start|>user\nName a meadow.<|im_end|>\n<|im_start|>assistant\n"
                "⟦<think>\n\n</think>\n\nRunnymede is green.<|im_end|>⟧\n"
            ],
        ),
    ],
)
def test_the_trained_parts_look_like_this(family: str, kind: str, expected: list[str]) -> None:
    assert shown(FAMILY[family], KIND[kind]) == expected


@pytest.mark.parametrize(
    ("family", "end"),
    [("Qwen 2.5", "<|im_end|>"), ("gpt-oss", "<|call|>"), ("GLM-4.5", "<|observation|>")],
)
def test_a_conversation_that_ends_with_a_tool_call_ends_with_the_token_to_stop_at(
    family: str, end: str
) -> None:
    kind = Kind("", (user("Forecast?"), assistant(None, tool_calls=[CALL])), (LOOKUP_WEATHER,))
    found = outcome(FAMILY[family], kind)
    assert not isinstance(found, str)
    assert found[0].end_token is not None
    assert FAMILY[family].tokenizer.decode([found[0].end_token]) == end
    check(FAMILY[family], kind, found)


@pytest.mark.parametrize("family", ["Qwen 2.5", "Qwen 3", "GLM-4.5", "gpt-oss", "Mistral"])
def test_every_call_of_a_tool_loop_is_trained_on(family: str) -> None:
    turns = (
        user("Forecast?"),
        assistant(None, tool_calls=[CALL]),
        tool("overcast", "lookup001"),
        assistant(None, tool_calls=[ANOTHER]),
        tool("drizzle", "lookup002"),
        assistant("Take umbrellas."),
    )
    kind = Kind("", turns, (LOOKUP_WEATHER,))
    found = outcome(FAMILY[family], kind)
    assert not isinstance(found, str), found
    texts = [run.text for example in found for run in runs(FAMILY[family], example)]
    assert len(texts) == 3
    for wanted, text in zip(["Ulaanbaatar", "Thimphu", "umbrellas"], texts, strict=True):
        assert wanted in text


@pytest.mark.parametrize("family", ["Qwen 2.5", "Qwen 3", "GLM-4.5", "Mistral"])
def test_all_calls_of_one_turn_are_trained_on(family: str) -> None:
    turns = (
        user("Forecast?"),
        assistant(None, tool_calls=[CALL, ANOTHER]),
        tool("overcast", "lookup001"),
        tool("drizzle", "lookup002"),
        assistant("Take umbrellas."),
    )
    kind = Kind("", turns, (LOOKUP_WEATHER,))
    found = outcome(FAMILY[family], kind)
    assert not isinstance(found, str), found
    check(FAMILY[family], kind, found)


def test_a_tool_call_is_not_lost_if_the_template_omits_the_reasoning_before_it() -> None:
    thinking = assistant(None, tool_calls=[CALL], reasoning_content="Ports come to mind")
    kind = Kind("", (user("Forecast?"), thinking))
    assert "leaves out reasoning_content" in str(outcome(FAMILY["DeepSeek V3"], kind))


def test_two_answers_in_a_row_are_trained_on_if_the_template_renders_them_alike() -> None:
    kind = Kind("", (user("Name two."), assistant("Bergen lies north."), assistant("And Oslo.")))
    assert shown(FAMILY["ChatML, base"], kind) == [
        "<|im_start|>user\nName two.<|im_end|>\n"
        "<|im_start|>assistant\n⟦Bergen lies north.<|im_end|>⟧\n"
        "<|im_start|>assistant\n⟦And Oslo.<|im_end|>⟧\n"
    ]


def test_an_answer_follows_its_prompt_even_if_the_template_then_rewrites_it() -> None:
    kind = Kind("", (user("Name two."), assistant("Bergen lies north."), assistant("And Oslo.")))
    thought = "<think>\n\n</think>\n\n"
    assert shown(FAMILY["Qwen 3"], kind) == [
        "<|im_start|>user\nName two.<|im_end|>\n"
        f"<|im_start|>assistant\n⟦{thought}Bergen lies north.<|im_end|>⟧\n"
        f"<|im_start|>assistant\n⟦{thought}And Oslo.<|im_end|>⟧\n"
    ]


@pytest.mark.parametrize("after", [system("Be kind, sailor."), assistant("And Oslo.")])
def test_an_answer_ends_as_before_a_user_turn_regardless_of_the_next_turn(after: Message) -> None:
    kind = Kind("", (user("Name one."), assistant("Bergen lies north."), after))
    assert shown(FAMILY["GLM-4"], kind)[0] == (
        "[gMASK]<sop><|user|>\nName one.<|assistant|>⟦\nBergen lies north.<|user|>⟧"
    )


def test_an_answer_that_quotes_the_question_is_found_after_it() -> None:
    kind = Kind("", (user("Say Bergen lies north."), assistant("Bergen lies north.")))
    assert shown(FAMILY["QwQ"], kind) == [
        "<|im_start|>user\nSay Bergen lies north.<|im_end|>\n"
        "<|im_start|>assistant\n⟦Bergen lies north.<|im_end|>⟧\n"
    ]


def test_a_question_is_not_trained_on_in_place_of_an_answer_that_the_template_cuts() -> None:
    """The question contains the words that the template omits from the answer."""
    said = "Ports</think>Bergen lies north."
    kind = Kind("", (user(f"Say {said}"), assistant(said)))
    assert shown(FAMILY["DeepSeek R1 Distill"], kind) == [
        f"<｜begin▁of▁sentence｜><｜User｜>Say {said}<｜Assistant｜><think>\n"
        f"⟦{said}<｜end▁of▁sentence｜>⟧"
    ]


def test_a_message_of_weight_0_is_read_but_not_trained_on() -> None:
    first = {**assistant("Bergen lies north."), "weight": 0}
    kind = Kind("", (user("Name one."), first, user("More."), assistant("Oslo.")))
    (text,) = shown(FAMILY["Qwen 3"], kind)
    assert text.endswith("⟦<think>\n\n</think>\n\nOslo.<|im_end|>⟧\n")
    assert text.count("⟦") == 1


def test_a_conversation_that_ends_with_a_question_is_trained_on_up_to_its_last_answer() -> None:
    kind = Kind("", (user("Name one."), assistant("Bergen."), user("More.")))
    assert shown(FAMILY["ChatML, base"], kind) == [
        "<|im_start|>user\nName one.<|im_end|>\n<|im_start|>assistant\n⟦Bergen.<|im_end|>⟧\n"
    ]


@pytest.mark.parametrize("thinking", [True, False])
def test_template_settings_reach_the_prompt_and_the_answer(thinking: bool) -> None:
    family = FAMILY["Qwen 3"]
    row = {**KIND["one turn"].row, "chat_template_kwargs": {"enable_thinking": thinking}}
    (example,) = Renderer(family.tokenizer).render(RowReader().read(row))
    (run,) = runs(family, example)
    opened = "" if thinking else "<think>\n\n</think>\n\n"
    written = "<think>\n\n</think>\n\n" if thinking else ""
    assert run.text == f"{written}Bergen lies north.<|im_end|>"
    assert family.tokenizer.decode(example.tokens[: run.start].tolist()).endswith(
        f"assistant\n{opened}"
    )


def test_of_several_templates_the_one_for_tools_is_used_if_there_are_tools() -> None:
    tokenizer = replace(FAMILY["ChatML, base"]).tokenizer
    plain, tools = FAMILY["ChatML, base"].source, FAMILY["Qwen 2.5"].source
    tokenizer.tokenizer.chat_template = {"default": plain, "tool_use": tools}
    renderer = Renderer(tokenizer)
    (example,) = renderer.render(RowReader().read(KIND["tools"].row))
    assert "⟦<tool_call>\n" in marked(example, tokenizer)
    (example,) = renderer.render(RowReader().read(KIND["one turn"].row))
    assert marked(example, tokenizer).startswith("<|im_start|>user\nName a harbour.")


@pytest.mark.parametrize("family", ["Llama 3", "Mistral, SentencePiece", "Qwen 3"])
def test_a_tokenizer_that_frames_every_text_does_not_frame_conversations(family: str) -> None:
    tokenizer = replace(FAMILY[family]).tokenizer
    fast = tokenizer.tokenizer
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{fast.bos_token} $A {fast.eos_token}",
        special_tokens=[(fast.bos_token, fast.bos_token_id), (fast.eos_token, fast.eos_token_id)],
    )
    found = Renderer(tokenizer, date=DATE).render(RowReader().read(KIND["several turns"].row))
    assert [marked(example, tokenizer) for example in found] == shown(
        FAMILY[family], KIND["several turns"]
    )


def test_every_answer_of_a_long_conversation_is_trained_on() -> None:
    turns = [speaker(f"turn {at}.") for at in range(40) for speaker in (user, assistant)]
    family = FAMILY["Qwen 2.5"]
    (example,) = Renderer(family.tokenizer).render(RowReader().read({"messages": turns}))
    assert len(list(runs(family, example))) == 40


WORDS = st.text(st.sampled_from("abn B:>\n.éß👍"), min_size=1, max_size=12).map(
    lambda text: f"x{text}x"
)


@settings(deadline=None, max_examples=30)
@pytest.mark.parametrize(
    "family",
    ["ChatML, base", "Qwen 3", "Mistral", "OpenChat, Starling", "SmolVLM, marked", "GLM-4.5"],
)
@given(asked=st.lists(WORDS, min_size=1, max_size=3), said=st.lists(WORDS, min_size=3, max_size=3))
def test_every_answer_is_trained_on_and_no_question_is(
    family: str, asked: list[str], said: list[str]
) -> None:
    turns = []
    for at, (question, answer) in enumerate(zip(asked, said, strict=False)):
        turns += [user(f"{question} asked {at}"), assistant(f"{answer} said {at}")]
    kind = Kind("", tuple(turns))
    renderer = Renderer(FAMILY[family].tokenizer, date=DATE)
    found = renderer.render(RowReader().read(kind.row))
    check(FAMILY[family], kind, found)
    for example in found:
        for run in runs(FAMILY[family], example):
            assert "asked" not in run.text


PLAIN = st.text(st.sampled_from("abn B:>.éß👍"), max_size=8).map(lambda text: f"b{text}.")


@settings(deadline=None, max_examples=8)
@pytest.mark.parametrize("family", FAMILY.values(), ids=lambda family: family.name)
@given(said=st.lists(st.one_of(PLAIN, PLAIN, WORDS), min_size=4, max_size=4))
def test_a_conversation_that_is_rendered_once_has_the_tokens_and_the_mask_of_the_exact_way(
    family: Family, said: list[str]
) -> None:
    renderer = Renderer(family.tokenizer, date=DATE)
    messages = [speaker(text) for speaker, text in zip([user, assistant] * 2, said, strict=True)]
    shape = RowReader().read({"messages": messages})
    assert isinstance(shape, Conversation)
    for _ in range(RARE + 1):
        found = renderer.render(shape)
    expected = exactly(renderer.template, shape.messages, [1, 3])
    assert [one.tokens.tolist() for one in found] == [one.ids for one in expected]
    assert [one.weights.astype(bool).tolist() for one in found] == [one.trained for one in expected]


@pytest.mark.parametrize(
    "name", ["Qwen 2.5", "Llama 3.1", "Gemma 3", "Phi-3", "GLM-4.5", "Granite 3"]
)
def test_conversations_of_common_templates_are_rendered_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(FAMILY[name].tokenizer, date=DATE)
    shape = RowReader().read(KIND["several turns"].row)
    assert isinstance(shape, Conversation)
    for _ in range(RARE + 1):
        renderer.render(shape)
    calls = []
    apply = renderer.template.tokenizer.apply_chat_template

    def counted(*given: Any, **options: Any) -> Any:
        calls.append(given)
        return apply(*given, **options)

    monkeypatch.setattr(renderer.template.tokenizer, "apply_chat_template", counted)
    renderer.render(shape)
    assert len(calls) == 1
