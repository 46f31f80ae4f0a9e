"""Weights are those of the folder, all of them, or the folder is refused with their names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import peft
import pytest
import torch
from crucible_kitchen import (
    Completer,
    CrucibleError,
    InvalidInput,
    LoraConfig,
    Message,
    NotFound,
    SamplingParams,
    SessionConfig,
    TrainingClient,
    Unsupported,
)
from safetensors.torch import load_file, save_file
from tiny_torch import MakeKitchen, datum
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

# PEFT, which the tests use themselves, calls what Transformers will remove.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ROWS = [[1, 2, 3, 4, 5]]
Change: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def folder(client: TrainingClient) -> Path:
    session = client.start_session(SessionConfig("deep", seed=4))
    return Path(client.save_weights_for_sampler(session, "model"))


def change_weights(folder: Path, change: Change) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def prefixed(prefix: str) -> Change:
    return lambda weights: {prefix + name: tensor for name, tensor in weights.items()}


def without(part: str) -> Change:
    return lambda weights: {name: t for name, t in weights.items() if part not in name}


def extra(weights: dict[str, Any]) -> dict[str, Any]:
    layer = {
        name.replace("layers.1", "layers.2"): t.clone()
        for name, t in weights.items()
        if "layers.1" in name
    }
    return {**weights, **layer}


def smaller(weights: dict[str, Any]) -> dict[str, Any]:
    return {n: t[:1].contiguous() if "lora_A" in n else t for n, t in weights.items()}


def cut(weights: dict[str, Any]) -> dict[str, Any]:
    return {**weights, "lm_head.weight": weights["lm_head.weight"][:-1].contiguous()}


@pytest.fixture(params=["training_client", "completer"])
def use(
    request: pytest.FixtureRequest, client: TrainingClient, completer: Completer
) -> Callable[[Path], object]:
    if request.param == "completer":
        return lambda folder: completer.score(ROWS, str(folder))
    return lambda folder: client.start_session(SessionConfig(str(folder)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (prefixed("_orig_mod."), "'_orig_mod.' is what torch.compile"),
        (prefixed("module."), "'module.' is what DistributedDataParallel"),
        (prefixed("_fsdp_wrapped_module."), "'_fsdp_wrapped_module.' is what FSDP"),
        (prefixed("base_model.model."), "'base_model.model.' is what PEFT"),
        (without("layers.1."), r"9 missing \(model.layers.1.input_layernorm.weight, "),
        (without("lm_head"), r"1 missing \(lm_head.weight\)"),
        (extra, r"9 not known to it \(model.layers.2.input_layernorm.weight, "),
        (cut, r"lm_head.weight is \(256, 16\) and should be \(257, 16\)"),
    ],
    ids=["compile", "ddp", "fsdp", "peft", "layer-less", "no-head", "layer-more", "shape"],
)
def test_weights_that_do_not_fit_are_refused_with_their_names(
    use: Callable[[Path], object], folder: Path, change: Change, reason: str
) -> None:
    change_weights(folder, change)
    with pytest.raises(InvalidInput, match=f"the weights of model '{folder}' do not fit.*{reason}"):
        use(folder)


def test_a_layer_that_the_configuration_does_not_have_is_refused(
    client: TrainingClient, folder: Path
) -> None:
    change_config(folder, num_hidden_layers=1)
    with pytest.raises(InvalidInput, match="9 not known to it"):
        client.start_session(SessionConfig(str(folder)))


def test_a_classifier_is_not_a_language_model(
    client: TrainingClient, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "classifier"
    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(other)
    with pytest.raises(InvalidInput, match=r"1 missing \(lm_head.weight\); 1 not known.*score"):
        client.start_session(SessionConfig(str(other)))


def test_weights_that_are_cut_off_are_refused(client: TrainingClient, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match=f"the weights of model '{folder}' cannot be read"):
        client.start_session(SessionConfig(str(folder)))


def test_weights_that_are_not_finite_are_refused(client: TrainingClient, folder: Path) -> None:
    change_weights(
        folder, lambda weights: weights | {"model.norm.weight": torch.full((16,), np.nan)}
    )
    with pytest.raises(InvalidInput, match="not finite"):
        client.start_session(SessionConfig(str(folder)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_fine(
    completer: Completer, folder: Path, dtype: torch.dtype
) -> None:
    [expected] = completer.score(ROWS, str(folder))
    change_weights(folder, lambda weights: {n: t.to(dtype) for n, t in weights.items()})
    other = folder.rename(folder.with_name("other"))
    np.testing.assert_allclose(completer.score(ROWS, str(other))[0], expected, atol=0.05)


def test_a_tied_unembedding_need_not_be_in_the_file(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(SessionConfig("gpt2", seed=2))
    folder = client.save_weights_for_sampler(session, "tied")
    assert "lm_head.weight" not in load_file(Path(folder) / "model.safetensors")
    live = client.save_weights_for_sampler(session)
    np.testing.assert_array_equal(completer.score(ROWS, folder), completer.score(ROWS, live))


def test_names_that_transformers_knows_of_old_are_fine(
    client: TrainingClient, completer: Completer
) -> None:
    """GPT-2's first checkpoints are the model without its head, with masks among the weights."""
    folder = Path(client.save_weights_for_sampler(client.start_session(SessionConfig("gpt2")), "x"))
    [expected] = completer.score(ROWS, str(folder))
    change_weights(
        folder,
        lambda weights: {
            **{name.removeprefix("transformer."): t for name, t in weights.items()},
            "h.0.attn.bias": torch.ones(1, 1, 32, 32),
            "h.0.attn.masked_bias": torch.tensor(-1e4),
        },
    )
    other = folder.rename(folder.with_name("old"))
    np.testing.assert_array_equal(completer.score(ROWS, str(other))[0], expected)


def test_a_model_without_its_head_is_refused_where_the_head_is_not_tied(
    client: TrainingClient, folder: Path, tmp_path: Path
) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "base")
    with pytest.raises(InvalidInput, match=r"1 missing \(lm_head.weight\)"):
        client.start_session(SessionConfig(str(tmp_path / "base")))


# --- what is not a decoder ---


@pytest.mark.parametrize("architecture", ["t5", "vit"])
def test_what_is_not_a_causal_language_model_is_unsupported(
    make_kitchen: MakeKitchen, folder: Path, architecture: str
) -> None:
    client = make_kitchen(models={"mine": {"model_type": architecture}}).training_client
    with pytest.raises(
        Unsupported, match=f"'mine' is a {architecture}, and Transformers has no causal"
    ):
        client.start_session(SessionConfig("mine"))


def test_an_encoder_decoder_of_a_folder_is_unsupported(
    client: TrainingClient, folder: Path
) -> None:
    change_config(folder, model_type="bart", is_encoder_decoder=True)
    with pytest.raises(Unsupported, match=r"is an encoder-decoder \(bart\)"):
        client.start_session(SessionConfig(str(folder)))


# --- adapters ---


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    """A PEFT adapter of the folder, whose update is not zero."""
    return make_adapter(folder, tmp_path / "adapter")


def make_adapter(base: Path, path: Path, **settings: Any) -> Path:
    torch.manual_seed(0)
    config = peft.LoraConfig(
        **{"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], **settings},
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(path)
    return path


def of_peft(base: Path, adapter: Path) -> Any:
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ROWS)).logits[0].log_softmax(-1)
    return [logits[i, ROWS[0][i + 1]].item() for i in range(len(ROWS[0]) - 1)]


def test_an_adapter_is_merged_into_its_base_model(
    client: TrainingClient, completer: Completer, folder: Path, adapter: Path
) -> None:
    expected = of_peft(folder, adapter)
    [alone] = completer.score(ROWS, str(adapter))
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    assert not np.allclose(completer.score(ROWS, str(folder))[0], expected, atol=1e-3)
    session = client.start_session(SessionConfig(str(adapter)))
    live = client.save_weights_for_sampler(session)
    np.testing.assert_allclose(completer.score(ROWS, live)[0], expected, atol=1e-5)
    assert client.helper("get_tokenizer")(session).encode("a") == [97]  # the base model's


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_a_merged_adapter_is_trained_on(
    client: TrainingClient,
    completer: Completer,
    adapter: Path,
    lora: LoraConfig | None,
) -> None:
    session = client.start_session(SessionConfig(str(adapter), lora=lora))
    before = client.await_(client.forward(session, [datum(ROWS[0])])).loss
    client.forward_backward(session, [datum(ROWS[0])])
    client.await_(client.optim_step(session, 1e-2))
    exported = client.save_weights_for_sampler(session, "trained")
    assert -completer.score(ROWS, exported)[0].sum() < before


def test_an_adapter_is_continued_by_option(
    make_kitchen: MakeKitchen,
    completer: Completer,
    folder: Path,
    adapter: Path,
) -> None:
    client = make_kitchen(adapter="continue").training_client
    lora = LoraConfig(rank=2, alpha=4, targets=("q_proj", "v_proj"))
    session = client.start_session(SessionConfig(str(adapter), lora=lora))
    expected = of_peft(folder, adapter)
    found = client.await_(client.forward(session, [datum(ROWS[0])])).outputs[0]["logprobs"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    stored = load_file(adapter / "adapter_model.safetensors")
    key = "model.layers.0.self_attn.q_proj.lora_A"
    weight = session.engine.weights[f"{key}.default.weight"]
    torch.testing.assert_close(weight.detach(), stored[f"base_model.model.{key}.weight"])
    live = client.save_weights_for_sampler(session)
    np.testing.assert_allclose(completer.score(ROWS, live)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        (None, "`lora` must be set"),
        (LoraConfig(rank=3, alpha=4, targets=("q_proj", "v_proj")), "its r is 2"),
        (LoraConfig(rank=2, alpha=2, targets=("q_proj", "v_proj")), "its lora_alpha is 4"),
        (LoraConfig(rank=2, alpha=4), "adapts other projections"),
    ],
)
def test_an_adapter_is_continued_with_the_lora_that_it_was_made_with(
    make_kitchen: MakeKitchen, adapter: Path, lora: LoraConfig | None, reason: str
) -> None:
    client = make_kitchen(adapter="continue").training_client
    with pytest.raises(InvalidInput, match=reason):
        client.start_session(SessionConfig(str(adapter), lora=lora))


def test_the_base_model_of_an_adapter_is_named_where_it_is_missing(
    use: Callable[[Path], object], folder: Path, adapter: Path
) -> None:
    gone = folder.rename(folder.with_name("gone"))
    reason = (
        f"adapter of the model '{folder}' \\(base_model_name_or_path in its adapter_config.json"
    )
    with pytest.raises(NotFound, match=reason):
        use(adapter)
    assert gone.is_dir()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("layers.1.self_attn.q_proj.lora_B"), "1 missing"),
        (
            lambda weights: {n.replace("layers.1.", "layers.7."): t for n, t in weights.items()},
            "not known to it",
        ),
        (
            lambda weights: {
                n: t[:1].contiguous() if "lora_A" in n else t for n, t in weights.items()
            },
            "of another shape",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_an_adapter_of_another_model_is_refused(
    client: TrainingClient, adapter: Path, change: Change, reason: str
) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=f"adapter '{adapter}' do not fit its base.*{reason}"):
        client.start_session(SessionConfig(str(adapter)))


def test_a_folder_of_a_model_and_an_adapter_is_ambiguous(
    client: TrainingClient, folder: Path, adapter: Path
) -> None:
    for file in adapter.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InvalidInput, match="holds a whole model and an adapter"):
        client.start_session(SessionConfig(str(folder)))


def test_an_adapter_of_a_tied_unembedding_is_unsupported(
    client: TrainingClient, tmp_path: Path
) -> None:
    base = client.save_weights_for_sampler(client.start_session(SessionConfig("gpt2")), "tied")
    path = make_adapter(Path(base), tmp_path / "head", target_modules=["wte"])
    with pytest.raises(Unsupported, match="one matrix"):
        client.start_session(SessionConfig(str(path)))


# --- without a tokenizer ---


@pytest.fixture(params=["llama", "gpt2"])
def silent(request: pytest.FixtureRequest, client: TrainingClient) -> str:
    """A folder without tokenizer. Of GPT-2's Transformers would make an empty one."""
    name = {"llama": "tiny", "gpt2": "gpt2"}[request.param]
    folder = Path(client.save_weights_for_sampler(client.start_session(SessionConfig(name)), "x"))
    for file in folder.glob("*token*"):
        file.unlink()
    return str(folder)


def test_a_model_without_tokenizer_trains_and_samples_on_token_ids(
    client: TrainingClient, completer: Completer, silent: str
) -> None:
    session = client.start_session(SessionConfig(silent))
    client.forward_backward(session, [datum([1, 2, 3])])
    client.await_(client.optim_step(session, 1e-3))
    exported = client.save_weights_for_sampler(session, "trained")
    params = SamplingParams(4, temperature=0, stop=(), model=exported)
    answer = completer.complete([1, 2], params)
    assert answer.tokens is not None
    assert (len(answer.tokens), answer.text) == (4, "")
    chunks = list(completer.stream_complete([1, 2], params))
    assert [chunk.text for chunk in chunks] == [""] * 4
    streamed = [chunk.tokens for chunk in chunks if chunk.tokens is not None]
    np.testing.assert_array_equal(np.concatenate(streamed), answer.tokens)


def test_a_model_without_tokenizer_says_so_where_text_is_asked_for(
    client: TrainingClient, completer: Completer, silent: str
) -> None:
    session = client.start_session(SessionConfig(silent))
    asked: list[Callable[[], object]] = [
        lambda: client.helper("get_tokenizer")(session),
        lambda: completer.complete(
            [Message(role="user", content="hi")], SamplingParams(1, model=silent)
        ),
        lambda: completer.complete([1], SamplingParams(1, stop=("x",), model=silent)),
    ]
    for ask in asked:
        with pytest.raises(CrucibleError, match=r"no tokenizer files \(tokenizer.json"):
            ask()


# --- numbers of tokens ---


def test_a_tokenizer_knows_how_many_tokens_its_model_does(client: TrainingClient) -> None:
    session = client.start_session(SessionConfig("tiny"))
    assert client.helper("get_tokenizer")(session).model_vocab_size == 257


@pytest.fixture
def no_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert caplog.records == []


def test_what_is_wrong_is_raised_and_not_logged_as_well(
    client: TrainingClient, folder: Path, no_log: None, capfd: pytest.CaptureFixture[str]
) -> None:
    change_weights(folder, prefixed("module."))
    capfd.readouterr()
    with pytest.raises(InvalidInput):
        client.start_session(SessionConfig(str(folder)))
    assert capfd.readouterr().err == ""
