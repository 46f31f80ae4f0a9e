"""Where settings come from, which of them wins, and what is said about mistakes in them."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible
from crucible_kitchen import AdamParams, Kitchen, LoraConfig
from crucible_kitchen.workflows.supervised import SupervisedConfig

Mistake = Callable[..., str]

FILE = """
[adapters]
blob_store = { use = "acme", bucket = "from-file", timeout = 5 }

[profile.prod.adapters.blob_store]
bucket = "from-profile"

[profile.twin.adapters]
blob_store = "twin-one/twin"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "crucible.toml"
    path.write_text(FILE)
    return path


def resolved(crucible: Crucible, *arguments: str, **environ: str) -> dict[str, tuple[str, str]]:
    """Return value and source of each key that `crucible config` shows."""
    outcome = crucible("config", *arguments, **environ)
    assert outcome.code == 0, outcome
    rows, table = {}, ""
    for line in outcome.out.splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        elif found := re.fullmatch(r"(\w+) = (.*)  # (.*)", line):
            rows[f"{table}.{found[1]}"] = (found[2], found[3])
    tomllib.loads(outcome.out)  # what is shown is TOML
    return rows


BUCKET = "adapters.blob_store.bucket"


@pytest.mark.usefixtures("file")
class TestPrecedence:
    def test_a_default_is_shown_as_one(self, crucible: Crucible) -> None:
        assert resolved(crucible)["adapters.blob_store.tags"] == ("[]", "default")

    def test_the_file_overrides_defaults(self, crucible: Crucible) -> None:
        assert resolved(crucible)[BUCKET] == ('"from-file"', "crucible.toml")

    def test_the_profile_overrides_the_file(self, crucible: Crucible) -> None:
        rows = resolved(crucible, "--profile", "prod")
        assert rows[BUCKET] == ('"from-profile"', "crucible.toml [profile.prod]")
        assert rows["adapters.blob_store.timeout"] == ("5.0", "crucible.toml")

    def test_a_profile_can_be_chosen_by_the_environment(self, crucible: Crucible) -> None:
        assert resolved(crucible, CRUCIBLE_PROFILE="prod")[BUCKET][0] == '"from-profile"'

    def test_the_environment_overrides_the_profile(self, crucible: Crucible) -> None:
        name = "CRUCIBLE_ADAPTERS__BLOB_STORE__BUCKET"
        rows = resolved(crucible, "--profile", "prod", **{name: "from-env"})
        assert rows[BUCKET] == ('"from-env"', f"environment variable {name}")

    def test_the_command_line_overrides_the_environment(self, crucible: Crucible) -> None:
        name = "CRUCIBLE_ADAPTERS__BLOB_STORE__BUCKET"
        rows = resolved(crucible, f"{BUCKET}=from-cli", **{name: "from-env"})
        assert rows[BUCKET] == ('"from-cli"', f"argument {BUCKET}=")

    def test_a_file_can_be_named(self, crucible: Crucible, tmp_path: Path) -> None:
        (tmp_path / "other.toml").write_text('adapters.blob_store = "acme"')
        assert resolved(crucible, "other.toml")[BUCKET] == ('"runs"', "default")

    def test_another_adapter_in_a_higher_layer_leaves_the_options_of_the_first_behind(
        self, crucible: Crucible
    ) -> None:
        rows = resolved(crucible, "--profile", "twin")
        assert rows[BUCKET] == ('"runs"', "default")
        assert rows["adapters.blob_store.timeout"] == ("30.0", "default")

    def test_the_same_adapter_in_a_higher_layer_keeps_the_options(self, crucible: Crucible) -> None:
        rows = resolved(crucible, CRUCIBLE_ADAPTERS__BLOB_STORE="acme")
        assert rows[BUCKET] == ('"from-file"', "crucible.toml")

    def test_a_name_and_options_in_the_environment_belong_together(
        self, crucible: Crucible
    ) -> None:
        rows = resolved(
            crucible,
            CRUCIBLE_ADAPTERS__BLOB_STORE="twin-one/twin",
            CRUCIBLE_ADAPTERS__BLOB_STORE__BUCKET="b",
        )
        assert rows[BUCKET][0] == '"b"'
        assert rows["adapters.blob_store.use"] == (
            '"twin-one/twin"',
            "environment variable CRUCIBLE_ADAPTERS__BLOB_STORE",
        )

    def test_lists_are_given_as_json_and_other_text_stays_text(self, crucible: Crucible) -> None:
        rows = resolved(crucible, 'adapters.blob_store.tags=["x"]', f"{BUCKET}=007")
        assert rows["adapters.blob_store.tags"][0] == '["x"]'
        assert rows[BUCKET][0] == '"007"'


def test_pyproject_is_read_where_there_is_no_crucible_toml(
    crucible: Crucible, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.crucible.adapters]\nblob_store = "acme"')
    assert resolved(crucible)["adapters.blob_store.use"] == ('"acme"', "pyproject.toml")
    (tmp_path / "crucible.toml").write_text("[adapters]")
    assert resolved(crucible) == {}


class TestMistakes:
    @pytest.fixture(autouse=True)
    def _in_a_folder_with_a_file(self, file: Path) -> None: ...

    def test_an_unknown_option_gets_path_source_and_nearest_spelling(
        self, mistake: Mistake, file: Path
    ) -> None:
        file.write_text('adapters.blob_store = { use = "acme", buckt = "b" }')
        said = mistake("config")
        assert (
            "adapters.blob_store.buckt: acme has no such key; did you mean 'bucket'? "
            "(from crucible.toml)" in said
        )

    def test_a_wrong_value_gets_path_and_source(self, mistake: Mistake) -> None:
        said = mistake("config", CRUCIBLE_ADAPTERS__BLOB_STORE__TIMEOUT="soon")
        assert "adapters.blob_store.timeout: Input should be a valid number" in said
        assert "(from environment variable CRUCIBLE_ADAPTERS__BLOB_STORE__TIMEOUT)" in said
        assert "soon" not in said  # a mistyped value may be a secret

    def test_an_unknown_option_of_an_inner_adapter_gets_its_full_path(
        self, mistake: Mistake
    ) -> None:
        said = mistake(
            "config",
            "adapters.blob_store=counting",
            "adapters.blob_store.inner.use=acme",
            "adapters.blob_store.inner.buckt=b",
        )
        assert (
            "adapters.blob_store.inner.buckt: acme has no such key; did you mean 'bucket'" in said
        )
        assert "(from argument adapters.blob_store.inner.buckt=)" in said

    def test_a_required_option_that_is_missing_is_named_with_its_meaning(
        self, mistake: Mistake
    ) -> None:
        said = mistake("config", "adapters.blob_store=counting")
        assert "adapters.blob_store.inner: is required: Where the calls go." in said

    def test_a_table_that_names_no_adapter(self, mistake: Mistake, file: Path) -> None:
        file.write_text('adapters.blob_store = { bucket = "b" }')
        assert 'adapters.blob_store: name the adapter: use = "<name>"' in mistake("config")

    def test_a_misspelt_environment_variable(self, mistake: Mistake) -> None:
        said = mistake("config", CRUCIBLE_ADAPTRES__BLOB_STORE="acme")
        assert "environment variable CRUCIBLE_ADAPTRES__BLOB_STORE" in said
        assert "did you mean 'adapters'?" in said

    def test_an_environment_variable_of_an_unknown_port(self, mistake: Mistake) -> None:
        said = mistake("config", CRUCIBLE_ADAPTERS__BLOBSTORE="acme")
        assert "'adapters.blobstore'; did you mean 'blob_store'?" in said

    def test_an_unknown_table_in_the_file(self, mistake: Mistake, file: Path) -> None:
        file.write_text('[adapter]\nblob_store = "acme"')
        said = mistake("config")
        assert "crucible.toml: there is no 'adapter'; did you mean 'adapters'?" in said

    def test_an_unknown_port_in_the_file(self, mistake: Mistake, file: Path) -> None:
        file.write_text('[adapters]\nblobs = "acme"')
        said = mistake("config")
        assert "crucible.toml: there is no 'adapters.blobs'; did you mean 'blob_store'?" in said

    def test_an_unknown_key_in_a_profile_that_is_not_chosen(
        self, mistake: Mistake, file: Path
    ) -> None:
        file.write_text('[profile.prod.adapter]\nblob_store = "acme"')
        assert "crucible.toml [profile.prod]: there is no 'adapter'" in mistake("config")

    def test_an_unknown_profile(self, mistake: Mistake) -> None:
        said = mistake("config", "--profile", "prd")
        assert "no [profile.prd] in crucible.toml; did you mean 'prod'?" in said

    def test_a_file_that_is_not_toml(self, mistake: Mistake, file: Path) -> None:
        file.write_text("[adapters\n")
        said = mistake("config")
        assert "crucible.toml is not valid TOML" in said
        assert "line 1" in said

    def test_a_string_in_place_of_a_table(self, mistake: Mistake, file: Path) -> None:
        file.write_text(f'adapters = "{TestSecrets.SECRET}"')
        said = mistake("config")
        assert "crucible.toml: adapters must be a table, not a string" in said
        assert TestSecrets.SECRET not in said

    def test_a_misspelt_workflow_key_is_found_by_the_doctor(
        self, crucible: Crucible, file: Path
    ) -> None:
        file.write_text('[workflow]\nuse = "supervised"\nmodl = "m"')
        outcome = crucible("doctor", CRUCIBLE_ADAPTERS__METRICS_STORE="noop")
        assert "workflow.modl: workflow has no such key; did you mean 'model'?" in outcome.out
        name = "CRUCIBLE_ADAPTERS__METRICS_STORE"
        said = f"noop: bound, has nothing to reach (from environment variable {name})"
        assert said in outcome.out

    def test_a_file_that_does_not_exist(self, mistake: Mistake) -> None:
        assert "there is no file 'nowhere.toml'" in mistake("run", "nowhere.toml")

    def test_an_argument_without_a_value(self, mistake: Mistake, file: Path) -> None:
        said = mistake("run", "crucible.toml", "workflow.epochs")
        assert "'workflow.epochs': settings are written key=value" in said

    def test_an_argument_for_an_unknown_setting(self, mistake: Mistake) -> None:
        said = mistake("run", "workflw.epochs=3")
        assert "there is no setting 'workflw.epochs'; did you mean 'workflow'?" in said

    def test_json_that_is_not_valid_is_explained(self, mistake: Mistake) -> None:
        said = mistake(
            "config", "adapters.completer=", CRUCIBLE_ADAPTERS__COMPLETER='{"use": "a",}'
        )
        assert "CRUCIBLE_ADAPTERS__COMPLETER: begins like JSON but is not valid: " in said
        said = mistake("config", "adapters.blob_store.use=tee", "adapters.blob_store.inner=[noop]")
        assert "adapters.blob_store.inner: Input should be a valid list; it begins like" in said
        assert "expecting value at character 2; did the shell remove a quote?" in said

    def test_json_in_quotes_is_not_taken_for_a_name(self, mistake: Mistake, tmp_path: Path) -> None:
        quoted = """[adapters]\nblob_store = '{"use": "acme", "api_key": "hunter22"}'\n"""
        (tmp_path / "crucible.toml").write_text(quoted)
        said = mistake("config")
        assert "adapters.blob_store: is JSON inside a string; write it without the quotes" in said
        assert "hunter22" not in said

    def test_an_item_of_a_list_cannot_be_set_by_itself(self, mistake: Mistake) -> None:
        said = mistake("config", "adapters.blob_store=tee", "adapters.blob_store.inner.0=noop")
        assert (
            "inner: Input should be a valid list; it can only be set as a whole, not item" in said
        )

    def test_an_adapter_of_another_port(self, mistake: Mistake) -> None:
        said = mistake("config", "adapters.metrics_store=fsspec")
        assert "no metrics_store adapter is named 'fsspec'; the adapter of that name serves" in said

    def test_an_unknown_workflow(self, mistake: Mistake) -> None:
        said = mistake("run", "workflow.use=supervise")
        assert "workflow.use: no workflow is named 'supervise'; did you mean 'supervised'?" in said
        assert " (from argument workflow.use=)\n" in said

    def test_an_unknown_key_of_the_workflow(self, mistake: Mistake) -> None:
        said = mistake(
            "run",
            *("workflow.use=supervised", "workflow.model=m", "workflow.dataset=d"),
            "workflow.learning_rat=1",
        )
        assert "workflow.learning_rat: workflow has no such key" in said
        assert "did you mean 'learning_rate'?" in said

    def test_a_port_that_is_not_configured_gets_the_line_to_add(self, mistake: Mistake) -> None:
        said = mistake("run", "workflow.use=supervised", "workflow.model=m", "workflow.dataset=d")
        assert "no adapter is chosen for training_client, dataset_store, metrics_store;" in said
        assert "add to crucible.toml\n\n    [adapters]\n    training_client = " in said
        assert '\n    dataset_store = "' in said

    def test_no_workflow(self, mistake: Mistake) -> None:
        assert 'use = "supervised"' in mistake("run")

    def test_use_that_is_misspelt(self, mistake: Mistake) -> None:
        said = mistake("run", "workflow.us=supervised")
        assert "did you mean workflow.use, not workflow.us?" in said
        said = mistake("config", "adapters.hub_client.ues=noop")
        assert "name the adapter: use = \"<name>\"; did you mean 'use', not 'ues'?" in said

    def test_a_file_whose_name_is_misspelt(self, mistake: Mistake) -> None:
        said = mistake("run", "crucible.tml")
        assert "there is no file 'crucible.tml'; did you mean 'crucible.toml'?" in said


class TestAllMistakesAtOnce:
    TEXT = """
        [adapters]
        training_client = { use = "noop", sede = 1 }
        metric_store = { use = "jsonll" }
        blob_store = { use = "explodes" }
        [workflow]
        use = "supervised"
        model = "tiny"
        batch_size = "many"
        datset = "rows"
        [observe]
        consle = true
    """
    SAID = (
        "crucible.toml: there is no 'adapters.metric_store'; did you mean 'metrics_store'?",
        "argument worklow.epochs=: there is no setting 'worklow.epochs'; did you mean 'workflow'?",
        "adapters.training_client.sede: noop has no such key; did you mean 'seed'? "
        "(from crucible.toml)",
        "adapters.blob_store: blob_store.explodes (",
        "adapters.metrics_store: no metrics_store adapter is named 'jsonll'; did you mean 'jsonl'?",
        "observe.consle: observe has no such key; did you mean 'console'? (from crucible.toml)",
        "workflow.datset: workflow has no such key; did you mean 'dataset'? (from crucible.toml)",
        "workflow.batch_size: Input should be a valid integer, unable to parse string as an "
        "integer (from crucible.toml)",
        "workflow.epochs: Input should be a valid number, unable to parse string as a number "
        "(from argument worklow.epochs=)",
    )

    @pytest.mark.parametrize("command", ["config", "run"])
    def test_a_command_lists_them_in_one_error(
        self, mistake: Mistake, file: Path, command: str
    ) -> None:
        file.write_text(self.TEXT)
        said = mistake(command, "worklow.epochs=soon")
        for line in self.SAID:
            assert f"\n  - {line}" in said
        asked = ["no adapter is chosen for dataset_store;"] if command == "run" else []
        assert said.startswith(f"error: {len(self.SAID) + len(asked)} mistakes in the config")
        assert all(f"\n  - {line}" in said for line in asked)

    def test_the_doctor_shows_each_where_it_belongs(self, crucible: Crucible, file: Path) -> None:
        file.write_text(self.TEXT)
        out = crucible("doctor", "worklow.epochs=soon").out
        for line in self.SAID:
            assert line in out

    def test_a_missing_workflow_hides_no_other_mistake(self, mistake: Mistake, file: Path) -> None:
        file.write_text('adapters.blob_store = "nowhere"')
        said = mistake("run")
        assert "  - no workflow is chosen; add to crucible.toml\n\n        [workflow]\n" in said
        assert "  - adapters.blob_store: no blob_store adapter is named 'nowhere'" in said

    @pytest.mark.parametrize("command", [("check", "blob_store.acme"), ("adapters", "show")])
    def test_no_command_works_with_a_misspelt_name(
        self, mistake: Mistake, command: tuple[str, ...], file: Path
    ) -> None:
        file.write_text('adapters = { blob_store = "acme", blob_stor = "acme" }')
        arguments = [] if command[0] == "check" else ["blob_store", "crucible.toml"]
        assert "did you mean 'blob_store'?" in mistake(*command, *arguments)


class TestSupervised:
    """What people bring from other trainers."""

    GIVEN = ("workflow.use=supervised", "workflow.model=m", "workflow.dataset=d")

    def test_line_breaks_can_be_typed_in_its_templates(self, crucible: Crucible) -> None:
        rows = resolved(
            crucible,
            *self.GIVEN,
            r"workflow.prompt=Q: {question}\n\tA:",
            r"workflow.completion= {answer}\\n",
            r"workflow.run_id=C:\new",
        )
        assert rows["workflow.prompt"][0] == r'"Q: {question}\n\tA:"'
        assert rows["workflow.completion"][0] == r'" {answer}\\n"'
        assert rows["workflow.run_id"][0] == r'"C:\\new"'

    @pytest.mark.parametrize(
        "key",
        ["model", "revision", "dataset", "split", "test_dataset", "test_split", "max_steps"],
    )
    def test_an_empty_value_is_said_to_be_empty(self, mistake: Mistake, key: str) -> None:
        assert f"workflow.{key}: is empty" in mistake("config", *self.GIVEN, f"workflow.{key}=")

    @pytest.mark.parametrize(
        ("argument", "hint"),
        [
            ("lora=8", "{ rank = 32 }, on the command line workflow.lora.rank=32"),
            ("lora_r=8", "did you mean 'lora.rank'?"),
            ("gradient_accumulation_steps=4", "adapters.training_client.micro_batch_tokens"),
            ("per_device_train_batch_size=4", "did you mean 'batch_size'?"),
            ("num_train_epochs=1", "did you mean 'epochs'?"),
            ("max_seq_length=512", "did you mean 'max_length'?"),
            ("lr=1e-4", "did you mean 'learning_rate'?"),
            ("output_dir=runs", "adapters.blob_store.url"),
            ("bf16=true", "adapters.training_client.dtype"),
        ],
    )
    def test_a_key_of_another_trainer_gets_ours(
        self, mistake: Mistake, argument: str, hint: str
    ) -> None:
        assert hint in mistake("config", *self.GIVEN, f"workflow.{argument}")


def test_every_name_that_is_known_from_elsewhere_stands_for_a_field_or_says_what_to_do() -> None:
    fields = {*SupervisedConfig.model_fields, *(f"lora.{f.name}" for f in fields_of(LoraConfig))}
    fields |= {f"adam.{f.name}" for f in fields_of(AdamParams)}
    for foreign, ours in SupervisedConfig.foreign_names.items():
        assert foreign not in SupervisedConfig.model_fields
        assert " " in ours or ours in fields, foreign


class TestSecrets:
    SECRET = "hunter2-do-not-tell"

    @pytest.fixture(autouse=True)
    def _in_a_folder_with_a_file(self, file: Path) -> None: ...

    def test_the_ecosystems_variable_is_a_default_and_masked(self, crucible: Crucible) -> None:
        rows = resolved(crucible, ACME_API_KEY=self.SECRET)
        assert rows["adapters.blob_store.api_key"] == (
            '"**********"',
            "environment variable ACME_API_KEY",
        )

    def test_every_layer_overrides_the_ecosystems_variable(self, crucible: Crucible) -> None:
        rows = resolved(crucible, "adapters.blob_store.api_key=x", ACME_API_KEY=self.SECRET)
        assert rows["adapters.blob_store.api_key"][1] == "argument adapters.blob_store.api_key="

    @pytest.mark.parametrize(
        "argument",
        [
            "adapters.blob_store.api_kye={}",  # declared by no field
            "adapters.blob_store.timeout={}",  # of another type
            "adapters.blob_store.api_key=[{}",  # almost JSON
            "adapters.blob_stor.api_key={}",
            "adapters.hub_client.token={}",
            'adapters.blob_store={{"use": "acme", "api_key": "{}",}}',  # a comma too many
            'adapters.blob_store.inner={{"use": "acme", "api_key": "{}",}}',
            'adapters.completer={{"use": "acme", "api_key": "{}"',
        ],
    )
    def test_a_secret_in_the_wrong_place_is_not_repeated(
        self, crucible: Crucible, argument: str
    ) -> None:
        for command in ("config", "run"):
            outcome = crucible(command, argument.format(self.SECRET))
            assert self.SECRET not in outcome.out + outcome.err

    @pytest.mark.parametrize("key", ["api_key", "inner.api_key"])
    def test_a_secret_under_which_more_is_set_is_not_shown_as_the_name_of_an_adapter(
        self, crucible: Crucible, file: Path, key: str
    ) -> None:
        use = "counting" if "inner" in key else "acme"
        file.write_text(f'[adapters.blob_store]\nuse = "{use}"\n{key} = "{self.SECRET}"\n')
        outcome = crucible("config", f"adapters.blob_store.{key}.x=1")
        assert outcome.code == 2
        assert self.SECRET not in outcome.out + outcome.err
        assert f'use = "{use}"' in outcome.out

    def test_values_of_an_adapter_that_cannot_be_loaded_are_not_shown(
        self, crucible: Crucible
    ) -> None:
        outcome = crucible(
            "config", "adapters.blob_store=explodes", f"adapters.blob_store.token={self.SECRET}"
        )
        assert self.SECRET not in outcome.out + outcome.err
        assert "(not shown)" in outcome.out


def test_init_writes_a_file_that_config_accepts(crucible: Crucible, tmp_path: Path) -> None:
    assert crucible("init").code == 0
    text = (tmp_path / "crucible.toml").read_text()
    assert "# Rows in an optimizer step.\n# batch_size = 32" in text


def test_every_default_that_init_comments_out_may_be_set(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    assert plain_crucible("init").code == 0
    written = (tmp_path / "crucible.toml").read_text()
    active = [block for block in written.split("\n\n") if not block.startswith("# Not needed")]
    default = re.compile(r"^# (\w+ = (?!.*\.\.\.).+)$", re.MULTILINE)
    text = default.sub(r"\1", "\n\n".join(active))
    assert "\nadam = { beta1 = 0.9" in text
    (tmp_path / "crucible.toml").write_text(text)
    outcome = plain_crucible("config")
    assert (outcome.code, outcome.err) == (0, "")


def test_init_replaces_a_file_only_when_forced(
    crucible: Crucible, mistake: Mistake, file: Path
) -> None:
    assert "crucible.toml exists" in mistake("init")
    assert file.read_text() == FILE
    assert crucible("init", "--force").code == 0
    assert file.read_text() != FILE


def test_as_many_wrappers_as_settings_may_be_deep_serve_calls() -> None:
    adapter: Any = {"use": "noop", "latency_scale": 0}
    for _ in range(60):
        adapter = {"use": "retry", "inner": adapter}
    with Kitchen({"blob_store": adapter}) as kitchen:
        kitchen.blob_store.write("a", b"1")
        assert kitchen.blob_store.read("a") == b"1"
        assert json.dumps(kitchen.describe()).count("retry") == 60


@pytest.mark.parametrize("many", [100, 2000])
@pytest.mark.parametrize("command", [("config",), ("doctor",), ("adapters", "show", "blob_store")])
def test_more_wrappers_are_one_line(
    crucible: Crucible, command: tuple[str, ...], many: int
) -> None:
    value = '{"use": "retry", "inner": ' * many + '"noop"' + "}" * many
    outcome = crucible(*command, f"adapters.blob_store={value}")
    assert outcome.code == (1 if command == ("doctor",) else 2)
    said = outcome.out if command == ("doctor",) else outcome.err
    [line] = [line for line in said.splitlines() if "nested too deeply" in line]
    assert "argument adapters.blob_store=: " in line
    assert "the limit is 64 levels of tables and lists" in line


def test_an_empty_table_is_shown_where_settings_are_wrong(
    crucible: Crucible, tmp_path: Path
) -> None:
    (tmp_path / "crucible.toml").write_text("[workflow]\n[adaptors]")
    outcome = crucible("config")
    assert (outcome.code, outcome.out) == (2, "workflow = (not shown)  # crucible.toml\n")


LONG = "n" * 300


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("init", LONG), f"{LONG} cannot be written: File name too long"),
        (("init", "pipe"), "pipe exists and is not a file; choose another name"),
        (("init", "--force", "pipe"), "pipe exists and is not a file; choose another name"),
        (("new", "adapter", LONG, "--port", "blob_store"), "has more than 100 letters"),
        (
            ("new", "adapter", "x", "--port", "blob_store", "--folder", LONG),
            f"{LONG} cannot be written: File name too long",
        ),
        (
            ("new", "adapter", "x", "--port", "blob_store", "--folder", "pipe"),
            "pipe exists and is not a folder; choose another with --folder",
        ),
        (("config", LONG), f"{LONG} cannot be read: File name too long"),
        (("config", "pipe"), "pipe cannot be read: it is a pipe, not a file"),
        (("config", "--profile", LONG), f"no [profile.{LONG}]: there is no crucible.toml here"),
        (("config", f"adapters.blob_store={LONG}"), f"no blob_store adapter is named '{LONG}'"),
        (("run", f"workflow.use={LONG}"), f"no workflow is named '{LONG}'"),
        (("adapters", "show", LONG), f"no adapter named '{LONG}' is installed"),
        (("trace", LONG), f"{LONG} cannot be read: File name too long"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else "",
)
def test_a_name_that_does_not_exist_is_one_line(
    plain_crucible: Crucible, tmp_path: Path, command: tuple[str, ...], said: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    outcome = plain_crucible(*command)
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert said in line
