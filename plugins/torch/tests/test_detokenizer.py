from __future__ import annotations

from crucible_adapter_torch.models.byte_tokenizer import byte_tokenizer
from crucible_adapter_torch.models.tokenizer import HuggingFaceTokenizer
from crucible_adapter_torch.sampling.detokenizer import Detokenizer
from hypothesis import given
from hypothesis import strategies as st

TOKENIZER = HuggingFaceTokenizer(byte_tokenizer())
TOKENS = st.one_of(
    st.lists(st.integers(0, 256)),
    st.text().map(lambda text: list(text.encode())),
)


@given(tokens=TOKENS)
def test_text_is_that_of_all_tokens_decoded_at_once(tokens: list[int]) -> None:
    detokenizer = Detokenizer(TOKENIZER, [])
    for token in tokens:
        detokenizer.add(token)
    assert detokenizer.text == TOKENIZER.decode(tokens, skip_special_tokens=True)


@given(tokens=TOKENS, stops=st.lists(st.text("ab€", min_size=1, max_size=3)))
def test_what_was_shown_is_never_taken_back(tokens: list[int], stops: list[str]) -> None:
    detokenizer = Detokenizer(TOKENIZER, stops)
    shown = ""
    for token in tokens:
        ended = detokenizer.add(token)
        assert detokenizer.shown.startswith(shown)
        shown = detokenizer.shown
        if ended:
            break
    assert detokenizer.text.startswith(shown)


@given(
    text=st.text("abc€", max_size=20),
    stops=st.lists(st.text("abc€", min_size=1, max_size=3), min_size=1),
)
def test_text_ends_at_the_first_stop_string(text: str, stops: list[str]) -> None:
    detokenizer = Detokenizer(TOKENIZER, stops)
    data = text.encode()
    read = next((n for n, token in enumerate(data, 1) if detokenizer.add(token)), None)
    reached = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stops)]
    if not reached:
        assert (read, detokenizer.text) == (None, text)
        return
    prefix = text[: reached[0]]
    assert read == len(prefix.encode())  # not a token later
    assert detokenizer.text == prefix[: min(prefix.find(s) for s in stops if s in prefix)]


def test_half_a_character_is_not_shown() -> None:
    detokenizer = Detokenizer(TOKENIZER, [])
    shown = []
    for token in "a€b".encode():
        detokenizer.add(token)
        shown.append(detokenizer.shown)
    assert shown == ["a", "a", "a", "a€", "a€b"]
