"""Models are made here or loaded, and what is wrong with a name is said at once."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from crucible_adapter_torch import completer as completer_module
from crucible_adapter_torch import live_weights
from crucible_adapter_torch.devices import choose_device, choose_dtype
from crucible_adapter_torch.models import load
from crucible_adapter_torch.options import ModelOptions
from crucible_adapter_torch.options import TrainingClientOptions as Options
from crucible_kitchen import (
    AdapterError,
    InvalidInput,
    NotFound,
    SamplingParams,
    SessionConfig,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer


def test_importing_the_adapters_does_not_import_pytorch():
    code = (
        "import sys, crucible_adapter_torch.completer, crucible_adapter_torch.training_client\n"
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


# --- made here ---


@pytest.mark.parametrize(
    ("model", "kind", "problem"),
    [
        ({"hiden_size": 8}, InvalidInput, "no 'hiden_size'; did you mean 'hidden_size'"),
        ({"model_type": "lama"}, NotFound, "no model_type 'lama'; did you mean 'llama'"),
        ({"hidden_size": 7, "num_attention_heads": 2}, InvalidInput, "multiple of"),
        ({"vocab_size": 100}, InvalidInput, "257 in all"),
    ],
)
def test_a_mistake_in_the_sizes_is_named(make_kitchen, model, kind, problem):
    client = make_kitchen(models={"mine": model}).training_client
    with pytest.raises(kind, match=f"models.mine: .*{problem}"):
        client.start_session(SessionConfig("mine"))


def test_sizes_are_those_asked_for(client):
    config = client.start_session(SessionConfig("gpt2")).engine.model.config
    assert (config.n_embd, config.n_head, config.n_positions) == (16, 2, 32)
    assert (config.vocab_size, config.eos_token_id) == (257, 256)


def test_a_model_made_here_has_no_revision(client):
    with pytest.raises(Unsupported, match="no revision 'main'"):
        client.start_session(SessionConfig("tiny", revision="main"))


# --- loaded ---


@pytest.fixture
def folder(client):
    session = client.start_session(SessionConfig("deep", seed=4))
    return Path(client.save_weights_for_sampler(session, "a name/ö"))


def test_weights_saved_with_a_name_are_a_hugging_face_folder(folder, completer):
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, 2]])).logits[0].log_softmax(-1)
    [score] = completer.score([[1, 2, 3]], str(folder))
    np.testing.assert_allclose(score, [logits[0, 2], logits[1, 3]], atol=1e-5)
    assert tokenizer.decode(tokenizer.encode("héllo")) == "héllo"
    assert model.generation_config.eos_token_id == 256
    assert not list(folder.parent.glob(".partial*"))


def test_a_session_starts_from_a_folder(client, folder, completer):
    session = client.start_session(SessionConfig(str(folder)))
    reference = client.save_weights_for_sampler(session)
    rows = [[1, 2, 3, 4]]
    np.testing.assert_array_equal(
        completer.score(rows, reference)[0], completer.score(rows, str(folder))[0]
    )
    with pytest.raises(Unsupported, match="revision"):
        client.start_session(SessionConfig(str(folder), revision="main"))


def test_weights_that_are_pickles_are_not_loaded(client, folder):
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(NotFound, match="safetensors"):
        client.start_session(SessionConfig(str(folder)))


def test_code_that_comes_with_a_model_is_not_run(client, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InvalidInput, match="trust_remote_code = true"):
        client.start_session(SessionConfig(str(folder)))
    assert not (tmp_path / "ran").exists()


def test_an_empty_folder_is_not_found(client, tmp_path):
    with pytest.raises(NotFound):
        client.start_session(SessionConfig(str(tmp_path)))


# --- the hub ---


@pytest.fixture
def hub(monkeypatch) -> Iterator[dict[str, object]]:
    """A hub on loopback that answers every request with `answer`: a status and a code."""
    asked: list[str] = []
    answer: dict[str, object] = {"asked": asked}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(int(str(answer["status"])))
            self.send_header("X-Error-Code", str(answer.get("code", "")))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield answer
    server.shutdown()
    thread.join()
    server.server_close()


def use_hub(monkeypatch, url):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "RepoNotFound", NotFound),
        (404, "RevisionNotFound", NotFound),
        (401, "GatedRepo", Unauthorized),
        (403, "", Unauthorized),
    ],
)
def test_what_the_hub_refuses_has_its_own_error(client, hub, status, code, kind):
    hub.update(status=status, code=code)
    with pytest.raises(AdapterError) as error:
        client.start_session(SessionConfig("acme/model", revision="v1"))
    assert type(error.value) is kind, error.value


def test_the_hub_is_asked_for_the_revision_of_the_session(client, hub):
    hub.update(status=404, code="RevisionNotFound")
    with pytest.raises(NotFound):
        client.start_session(SessionConfig("acme/model", revision="v1"))
    assert hub["asked"]
    assert all("/v1/" in path for path in hub["asked"])


def test_a_hub_that_may_not_be_asked_is_unavailable(client, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="cannot be reached for model 'acme/model'"):
        client.start_session(SessionConfig("acme/model"))


def test_the_commit_of_a_model_is_known(client, folder, monkeypatch, tmp_path):
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--acme--model"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cached.parent))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert client.start_session(SessionConfig("acme/model")).commit == commit


def test_an_unknown_name_says_which_models_are_made_here(client):
    with pytest.raises(NotFound, match=r"made here: tiny, deep.* did you mean 'tiny'"):
        client.start_session(SessionConfig("tiny/"))


# --- device and precision ---


def test_an_unknown_device_is_invalid_input(make_kitchen):
    with pytest.raises(InvalidInput, match="no device 'gpu9'"):
        make_kitchen(device="gpu9").training_client.start_session(SessionConfig("tiny"))


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_an_automatic_device_is_the_first_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected


def test_an_automatic_precision_is_bfloat16_where_the_device_is_fast_at_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kwargs: True)
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kwargs: False)
    assert choose_dtype("auto", torch.device("cuda")) is torch.float32
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32


@pytest.fixture
def two_threads() -> Iterator[dict[str, int]]:
    yield {"threads": 2}
    torch.set_num_threads(1)


def test_training_uses_the_threads_that_were_asked_for(make_kitchen, datums, two_threads):
    client = make_kitchen(**two_threads).training_client
    session = client.start_session(SessionConfig("tiny"))
    torch.set_num_threads(1)  # the caller's own thread has no say
    found = threads_of(session.engine.model)
    client.await_(client.forward(session, datums))
    assert found == [2]


def test_sampling_uses_the_threads_that_were_asked_for(client, two_threads):
    session = client.start_session(SessionConfig("tiny"))
    reference = client.save_weights_for_sampler(session)
    found = threads_of(live_weights.find(reference).model)
    opts = completer_module.Options(model=reference, **two_threads)
    completer_module.complete(opts, [1], SamplingParams(1))
    assert set(found) == {2}


def threads_of(model):
    found = []
    model.register_forward_pre_hook(lambda *_: found.append(torch.get_num_threads()))
    return found


def test_deterministic_algorithms_are_used_on_demand(make_kitchen, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    client = make_kitchen(deterministic=True).training_client
    try:
        client.start_session(SessionConfig("tiny"))
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)


def test_weights_and_moments_stay_float32_in_bfloat16(make_kitchen, datums):
    client = make_kitchen(dtype="bfloat16").training_client
    exact, session = (
        c.start_session(SessionConfig("tiny")) for c in (make_kitchen().training_client, client)
    )
    expected = make_kitchen().training_client
    loss = client.await_(client.forward_backward(session, datums)).loss
    client.await_(client.optim_step(session, 1e-2))
    reference = expected.await_(expected.forward(exact, datums)).loss
    assert loss != reference
    assert loss == pytest.approx(reference, rel=1e-2)
    engine = session.engine
    assert {w.dtype for w in engine.weights.values()} == {torch.float32}
    assert {m.dtype for m in engine.moments().values()} == {torch.float32}


def test_no_threads_are_refused_with_the_options():
    with pytest.raises(ValidationError, match="threads"):
        Options(threads=0)


def test_options_know_their_defaults():
    assert (Options().device, Options().threads, Options().micro_batch_tokens) == ("auto", 1, 4096)
    assert ModelOptions().models == {}


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere", "noop://ephemeral/1"])
def test_what_cannot_be_a_name_on_a_hub_is_not_looked_up_there(name: str) -> None:
    folder = os.path.expanduser(name)
    with pytest.raises(NotFound, match=f"there is no folder '{folder}'"):
        load(ModelOptions(), name)


def test_an_unknown_device_is_answered_with_those_there_are(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match="no device 'gpu' here; there is cpu, cuda:0, cuda:1, "):
        choose_device("gpu")


def test_a_device_that_is_not_there_is_not_offered(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(
        InvalidInput, match="no device 'cuda' here; there is cpu, and auto takes cpu"
    ):
        choose_device("cuda")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    opts = Options(models={"tiny": sizes}, checkpoint_dir="~/checkpoints")
    assert opts.checkpoint_dir == tmp_path / "checkpoints"
    language = load(opts, "tiny")
    language.model.save_pretrained(tmp_path / "saved")
    assert load(opts, "~/saved").vocab_size == language.vocab_size
    with pytest.raises(NotFound, match="begins with no home folder"):
        load(opts, "~nobody-at-all/saved")
