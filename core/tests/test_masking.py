"""Masking: no form of a secret is shown, and text without secrets stays readable."""

from __future__ import annotations

import base64
import html
import json
import math
import pickle
import reprlib
import string
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    ConfigurationError,
    Event,
    Kitchen,
    NotFound,
    Unavailable,
    WorkflowConfig,
    hookimpl,
    run,
)
from crucible_kitchen.masking.data import shown
from crucible_kitchen.masking.errors import mask_error, without_secrets
from crucible_kitchen.masking.evident import masked
from crucible_kitchen.masking.mask import MASK
from crucible_kitchen.masking.models import visible
from crucible_kitchen.masking.names import says_secret, says_secret_in_a_query
from crucible_kitchen.masking.secrets import Secrets, redacted
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, field_validator

CANARY = "c4n4ryXy"

# --- URLs ---

ANYTHING = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=12)
SCHEMES = st.sampled_from(
    ["https", "ftp", "s3", "hf", "postgresql+psycopg", "simplecache::https", "jdbc:mysql", "redis"]
)
HOSTS = st.sampled_from(["host", "h.example.org:8080", "127.0.0.1", "[::1]:5432", "bucket"])
PATHS = st.sampled_from(["", "/", "/a/b.jsonl", "/a@b", "?x=1&y=2", "/p#f"])


@st.composite
def urls_with_a_secret(draw: st.DrawFn) -> str:
    before, behind = draw(ANYTHING), draw(ANYTHING)
    secret = before + CANARY + behind
    where = draw(st.sampled_from(["password", "user", "both", "parameter"]))
    scheme, host, path = draw(SCHEMES), draw(HOSTS), draw(PATHS)
    match where:
        case "password":
            return f"{scheme}://{draw(ANYTHING)}:{secret}@{host}{path}"
        case "user":
            return f"{scheme}://{secret}:{draw(ANYTHING)}@{host}{path}"
        case "both":
            return f"{scheme}://{secret}:{secret}@{host}{path}"
    name = draw(st.sampled_from(["token", "api-key", "sig", "X-Amz-Signature", "password"]))
    return f"{scheme}://{host}/x?a=b&{name}={secret.replace('&', '')}"


@given(urls_with_a_secret())
@settings(deadline=None)
@example(f"ftp://u:{CANARY}/x@h/p")
@example(f"ftp://u:a@{CANARY}@h/p")
@example(f"ftp://u:a {CANARY}@h/p")
@example(f"ftp://u:{CANARY}#b@127.0.0.1:1/p")
@example(f"https://h/x?token=a@{CANARY}")
@example(f"https://::{CANARY}:@h")
@example(f"https://u:a::b:{CANARY}@h")
def test_no_secret_of_a_url_is_in_its_masked_text(url: str) -> None:
    assert CANARY not in masked(url, whole=True)


@given(urls_with_a_secret())
@settings(deadline=None, max_examples=40)
@example(f"https://host/x?a=b&token= @{CANARY}")
def test_no_secret_of_a_url_that_is_known_is_in_a_message(url: str) -> None:
    secrets = Secrets({"url": url})
    for text in (url, f"cannot open {url!r}: no", f"{url} failed", json.dumps({"at": url})):
        assert CANARY not in secrets.masked(text)


@given(st.text(string.ascii_letters + string.digits + "+/=_-", max_size=9), HOSTS)
def test_a_token_in_place_of_a_user_is_masked(token: str, host: str) -> None:
    assert CANARY not in masked(f"https://{token}{CANARY}/{token}@{host}/v1", whole=True)


@pytest.mark.parametrize(
    "text",
    [
        f"https://u:{CANARY}/x@host/rows.jsonl",
        f"cannot open 'ftp://u:a {CANARY}@h/p': no",
        f"cannot open ftp://u:a {CANARY}@h/p",
        f"https:/u:{CANARY}@host/rows.jsonl",  # as pathlib has it
        rf'{{"url": "https:\/\/u:{CANARY}@host"}}',  # as some JSON has it
        f"zip://rows.csv::https://u:{CANARY}@h/a.zip and hf://datasets/a/b@main",
        f"jdbc:oracle:thin:scott/{CANARY}@//h:1521/x",
        f"jdbc:postgresql://h/db?user=u&password={CANARY}",
        f"jdbc:sqlserver://h;user=u;password={CANARY};encrypt=true",
        f"https://h/?next=https%3A%2F%2Fu%3A{CANARY}%40h%2Fx",
        f"https://h/#access_token={CANARY}",
        f"Max retries exceeded with url: /v1?api-key={CANARY} (caused by",
        f"{{'Authorization': 'Bearer {CANARY}', 'X': 1}}",
        f'{{"api_key": "{CANARY}"}}',
        f"authorization: Basic {CANARY}",
    ],
)
def test_a_secret_that_is_evident_in_a_message_is_masked(text: str) -> None:
    assert CANARY not in masked(text)
    assert MASK in masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "runs/checkpoints/a@b",
        "Qwen/Qwen3-0.6B",
        "me@example.org",
        "https://example.org/pkg@2.1/x.js",
        "https://example.org:8000/v1?x=1&page=2#top",
        "http://127.0.0.1:8000/v1",
        "hf://datasets/me/rows@main/train.jsonl",
        "file:///home/me@work/rows.jsonl",
        "s3://bucket/a@b",
        "abfs://container@account.dfs.core.windows.net/x",
        "sqlite:///metrics.db",
        "postgresql://user:password@host/database",  # what documentation writes
        "C:/Users/me@work",
        "max_tokens=5, eos_token=</s>, key: 5; token = 3",
        "line 3:/tmp/a@b",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert masked(text) == text
    assert masked(text, whole=True) == text
    assert masked(f"see {text!r} and write to me@example.org") == (
        f"see {text!r} and write to me@example.org"
    )


@given(
    st.sampled_from(["https", "s3", "hf", "file"]),
    st.from_regex(r"[a-z]{1,8}(\.[a-z]{2,5}){1,2}", fullmatch=True),
    st.text(string.ascii_letters + string.digits + "/._-@", max_size=20),
)
def test_a_path_after_a_host_stays_readable(scheme: str, host: str, path: str) -> None:
    url = f"{scheme}://{host}/{path}"
    assert masked(url, whole=True) == url


@given(ANYTHING)
def test_masking_twice_is_masking_once(text: str) -> None:
    once = masked(f"https://u:{text}@host/{text}")
    assert masked(once) == once


# --- what libraries make of a secret ---

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "repr": lambda s: repr(s)[1:-1],
    "repr of repr": lambda s: repr(repr("<" + s + ">")).partition("<")[2].rpartition(">")[0],
    "bytes": lambda s: repr(s.encode())[2:-1],
    "json": lambda s: json.dumps(s)[1:-1],
    "json with unicode": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "json in json": lambda s: json.dumps(json.dumps(s)[1:-1])[1:-1],
    "KeyError": lambda s: str(KeyError(s))[1:-1],
    "quote": lambda s: urllib.parse.quote(s, safe=""),
    "quote with /": urllib.parse.quote,
    "quote in lower case": lambda s: urllib.parse.quote(s, safe="").lower(),
    "quote_plus": urllib.parse.quote_plus,
    "quoted twice": lambda s: urllib.parse.quote(urllib.parse.quote(s, safe=""), safe=""),
    "html": html.escape,
    "hex": lambda s: s.encode().hex(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "urlsafe base64": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "basic": lambda s: base64.b64encode(b"user:" + s.encode()).decode(),
    "basic of a token": lambda s: base64.b64encode(s.encode() + b":").decode(),
    "inside base64": lambda s: base64.b64encode(f'{{"a":"{s}"}}'.encode()).decode(),
    "lower case": str.lower,
    "upper case": str.upper,
}


@given(st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=6, max_size=30))
@settings(deadline=None)
@example("pa ss/w@rd#?&=%+'\"\\\n\t")
@example("pässwörd…🔑")
@example("\\\\\\\\\\\\")
def test_no_form_of_a_secret_is_in_a_message(secret: str) -> None:
    secrets = Secrets()
    secrets.learn(secret, secret=True)
    for name, made in FORMS.items():
        form = made(secret)
        if name in ("lower case", "upper case") and len(form) != len(secret):
            continue  # such as SS for ß
        said = secrets.masked(f"it was <{form}> there")
        assert said.startswith("it was <"), name
        assert form not in said, name
        assert MASK in said, name


def test_each_piece_of_a_url_that_a_library_may_read_as_its_host_is_masked() -> None:
    secrets = Secrets({"url": f"postgresql://me:a@{CANARY}/b%20c@127.0.0.1:1/db"})
    for said in (f"{CANARY}@127.0.0.1", f"host {CANARY.lower()!r}", f"a@{CANARY}"):
        assert CANARY.lower() not in secrets.masked(said).lower()


def test_the_secrets_inside_headers_are_known() -> None:
    basic = base64.b64encode(b"user-name:pass-word").decode()
    secrets = Secrets({"headers": {"Authorization": f"Basic {basic}", "Cookie": "id=crumbs; a=b"}})
    said = secrets.masked("user-name, pass-word and crumbs")
    assert said == f"{MASK}, {MASK} and {MASK}"


def test_a_long_secret_is_known_by_its_lines() -> None:
    lines = [f"{number:064d}" for number in range(20)]
    secrets = Secrets()
    secrets.learn("\n".join(["-----BEGIN PRIVATE KEY-----", *lines]), secret=True)
    assert secrets.masked(f"bad line {lines[3]!r}") == f"bad line '{MASK}'"
    assert secrets.masked("BEGIN with the KEY") == "BEGIN with the KEY"


# --- names ---


@pytest.mark.parametrize(
    "name",
    """authorization Authorization api-key x-api-key X-Api-Key apiKey APIKEY token hf_token
    access_token auth_token secret client_secret password passwd pwd db_password cookie Set-Cookie
    credential credentials access_key aws_secret_access_key sas signature private_key
    AWSAccessKeyId key X-Auth-Token Proxy-Authorization sessionToken api_keys access_tokens
    """.split(),  # noqa: SIM905
)
def test_a_name_that_says_secret(name: str) -> None:
    assert says_secret(name)
    assert says_secret_in_a_query(name)


@pytest.mark.parametrize(
    "name",
    """max_tokens eos_token pad_token stop_token_ids token_type num_tokens author monkey sort_key
    primary_key keyword keys tokens tokenizer chat_template bucket url path model user username
    passed_rows designation
    """.split(),  # noqa: SIM905
)
def test_a_name_that_does_not(name: str) -> None:
    assert not says_secret(name)


@pytest.mark.parametrize(
    "name", ["X-Amz-Credential", "X-Amz-Security-Token", "sig", "Key-Pair-Id", "code", "se", "skey"]
)
def test_a_parameter_that_says_secret(name: str) -> None:
    assert says_secret_in_a_query(name)


def test_free_tables_are_masked_by_the_names_of_their_keys_at_any_depth() -> None:
    table = {
        "headers": [{"X-Api-Key": CANARY, "Accept": "json"}],
        "auth": {"user": "me", "how": CANARY},
        "password": 12345,
        "token": 17,  # the number of a token
        "max_tokens": 5,
        "secret": None,
        "deep": {"er": [{"url": f"https://u:{CANARY}@h"}]},
    }
    assert shown(table) == {
        "headers": [{"X-Api-Key": MASK, "Accept": "json"}],
        "auth": MASK,
        "password": MASK,
        "token": 17,
        "max_tokens": 5,
        "secret": None,
        "deep": {"er": [{"url": f"https://{MASK}@h"}]},
    }


def test_a_table_that_holds_itself_is_masked_below_the_deepest_level() -> None:
    table: dict[str, Any] = {}
    table["again"] = table
    assert MASK in repr(shown(table))
    Secrets(table)


# --- models ---


class Options(AdapterOptions):
    url: str
    extra_body: dict[str, Any] = {}  # noqa: RUF012
    key: SecretStr | None = None
    either: str | SecretStr = ""


OPTIONS = {
    "url": f"https://u:{CANARY}@h/x",
    "extra_body": {"metadata": [{"api_key": CANARY}], "temperature": 1},
    "key": CANARY,
    "either": CANARY,
}


class Config(WorkflowConfig):
    dataset: str
    headers: dict[str, str]


@pytest.mark.parametrize(
    "model",
    [
        Options(**OPTIONS),
        Config(dataset=f"https://u:{CANARY}@h/rows", headers={"Authorization": CANARY}),
    ],
)
@pytest.mark.parametrize(
    "represent", [repr, str, BaseModel.model_dump, BaseModel.model_dump_json, visible, pickle.dumps]
)
def test_no_representation_of_a_model_shows_a_secret(
    model: BaseModel, represent: Callable[[Any], Any]
) -> None:
    if represent is pickle.dumps:  # which must keep everything
        assert pickle.loads(pickle.dumps(model)) == model
        return
    said = str(represent(model))
    assert CANARY not in said
    assert MASK in said
    assert "://" in said


def test_the_attributes_of_options_are_as_given() -> None:
    opts = Options(**OPTIONS)
    assert opts.url == OPTIONS["url"]
    assert opts.extra_body == OPTIONS["extra_body"]
    assert opts.model_copy() == opts


# --- errors ---


class Oneself(Exception):
    """An exception whose text is not made of its arguments, as in httpx and botocore."""

    def __init__(self, response: dict[str, str]) -> None:
        super().__init__()
        self._response = response

    def __str__(self) -> str:
        return f"the server said {self._response}"


class Closed(Exception):
    """An exception that cannot be changed."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"closed by {CANARY}"

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("__"):
            raise AttributeError(name)
        super().__setattr__(name, value)


def kitchen_that_raises(raise_it: Callable[[], None]) -> Kitchen:
    class Store:
        Options: ClassVar[type[AdapterOptions]] = Options

        @hookimpl
        def read(self, opts: AdapterOptions, path: str) -> bytes:
            raise_it()
            return b""

        @hookimpl
        def stream(self, opts: AdapterOptions, path: str, chunk_size: int) -> Iterator[bytes]:
            yield b"a"
            raise_it()

        @hookimpl
        def write(self, opts: AdapterOptions, path: str, data: Any) -> None: ...

        @hookimpl
        def exists(self, opts: AdapterOptions, path: str) -> bool:
            return True

    return Kitchen({"blob_store": {"use": Store(), **OPTIONS}})


def key_error() -> None:
    nothing: dict[str, str] = {}
    nothing[CANARY]


def os_error() -> None:
    Path(f"/nowhere/{CANARY}").read_bytes()


def of_its_own() -> None:
    raise Oneself({"echo": CANARY})


def closed() -> None:
    error = Closed()
    error.__notes__ = [f"sent with {CANARY}"]
    raise error


def group() -> None:
    raise ExceptionGroup("several", [ValueError(CANARY), Oneself({"echo": CANARY})])


def with_a_cause() -> None:
    try:
        of_its_own()
    except Oneself as error:
        error.add_note(f"sent with {CANARY}")
        raise Unavailable(f"no {CANARY}", details={"url": OPTIONS["url"], "n": 1}) from error


def with_a_context() -> None:
    try:
        key_error()
    except KeyError:
        error = NotFound("there is none", details={CANARY: [CANARY, {"x": repr(CANARY)}]})
        error.add_note(f"sent with {CANARY}")
        raise error  # noqa: B904


def circle() -> None:
    first, second = ValueError(CANARY), ValueError(CANARY)
    first.__cause__, second.__cause__ = second, first
    raise first


RAISING = [key_error, os_error, of_its_own, closed, group, with_a_cause, with_a_context, circle]


@pytest.mark.parametrize("raise_it", RAISING)
@pytest.mark.parametrize("callback", ["read", "stream"])
def test_nothing_of_an_error_shows_a_secret(raise_it: Callable[[], None], callback: str) -> None:
    store = kitchen_that_raises(raise_it).blob_store
    with pytest.raises(AdapterError) as caught:
        store.read("a") if callback == "read" else list(store.stream("a"))
    error = caught.value
    printed = "".join(traceback.format_exception(error))
    for text in (printed, str(error), repr(error), repr(error.details), repr(vars(error))):
        assert CANARY not in text
    assert MASK in printed
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.details) == (str(error), error.details)


def test_a_cause_keeps_its_type_and_its_traceback() -> None:
    for raise_it, kind in ((key_error, KeyError), (of_its_own, Oneself), (closed, Closed)):
        with pytest.raises(AdapterError) as caught:
            kitchen_that_raises(raise_it).blob_store.read("a")
        cause = caught.value.__cause__
        assert isinstance(cause, kind)
        assert type(cause).__name__ == kind.__name__
        frames = traceback.extract_tb(cause.__traceback__)
        assert frames[-1].name == raise_it.__name__


def test_a_cause_without_secrets_is_the_one_that_was_raised() -> None:
    raised = ValueError("plain")

    def plain() -> None:
        raise raised

    with pytest.raises(AdapterError) as caught:
        kitchen_that_raises(plain).blob_store.read("a")
    assert caught.value.__cause__ is raised


def test_what_an_error_carries_keeps_its_type_where_it_is_plain() -> None:
    error = AdapterError("no", details={"status": 404, "codes": (1, "a"), "raw": b"x", "n": None})
    mask_error(error, Secrets())
    assert error.details == {"status": 404, "codes": (1, "a"), "raw": b"x", "n": None}


def test_arguments_that_an_error_makes_anew_each_time_are_masked() -> None:
    """Ray's errors, which are also the ones that they carry, have such a property."""

    class Carried(AdapterError):
        @property
        def args(self) -> tuple[Any, ...]:
            return tuple(f"{value}" for value in self.__dict__["given"])

        @args.setter
        def args(self, given: tuple[Any, ...]) -> None:
            self.__dict__["given"] = given

    error = Carried("")
    error.args = (f"a {CANARY} of mine",)
    secrets = Secrets()
    secrets.learn(CANARY, secret=True)
    mask_error(error, secrets)
    assert error.args == ("a ********** of mine",)


def test_an_error_of_one_adapter_shows_no_secret_of_another() -> None:
    def raise_it() -> None:
        raise Unavailable("another-secret and from-a-table and hf_of-a-url")

    store = kitchen_that_raises(raise_it)
    other = {"use": "noop"}
    values = store.settings.values["adapters"]
    kitchen = Kitchen({**values, "completer": other})
    kitchen.conceal({"headers": {"x-api-key": "another-secret"}})
    kitchen.conceal(Config(dataset="https://hf_of-a-url@h", headers={"token": "from-a-table"}))
    with pytest.raises(Unavailable, match=r"\*{10} and \*{10} and \*{10}$"):
        kitchen.blob_store.read("a")


def test_a_validator_that_repeats_a_secret_does_not_show_it() -> None:
    class Strict(AdapterOptions):
        number: SecretStr

        @field_validator("number")
        @classmethod
        def _is_long(cls, key: SecretStr) -> SecretStr:
            raise ValueError(f"{key.get_secret_value()!r} is not a key")

    class Store:
        Options = Strict

    with pytest.raises(ConfigurationError, match=r"'\*{10}' is not a key") as caught:
        Kitchen({"blob_store": {"use": Store(), "number": CANARY}}).blob_store  # noqa: B018
    assert CANARY not in "".join(traceback.format_exception(caught.value))


# --- events ---


def test_no_event_shows_a_secret_that_is_known_or_that_a_url_holds() -> None:
    kitchen = Kitchen({})
    events: list[Event] = []
    kitchen.conceal({"password": "hidden-value"})
    kitchen.observe(events.append)
    url = f"https://u:{CANARY} x@h/rows"
    kitchen.observers.emit(
        "dataset.load", dataset=url, run_id="hidden-value", notes=["hidden-value"]
    )
    with kitchen.observers.start("training.step", metrics={"loss": 1.0}, at=url):
        pass
    assert CANARY not in repr(events)
    assert events[0].attributes["notes"] == [MASK]
    assert events[0].attributes["run_id"] == "hidden-value"  # by which a run is found again
    assert events[1].attributes["metrics"] == {"loss": 1.0}


def test_numbers_that_are_not_finite_are_shown_as_they_are() -> None:
    class Options(AdapterOptions):
        timeout: float = math.inf
        table: dict[str, Any] = Field({"rate": -math.inf})

    seen = visible(Options())
    assert seen == {"timeout": math.inf, "table": {"rate": -math.inf}}


def test_a_plain_word_in_a_secret_table_is_not_masked_in_messages() -> None:
    class Options(AdapterOptions):
        storage: dict[str, SecretStr | str]

    opts = Options(storage={"protocol": "file", "password": SecretStr("sesame")})
    assert "file" not in str(visible(opts))
    assert redacted("file too large: sesame", opts) == f"file too large: {MASK}"


@pytest.mark.parametrize(
    "text",
    [
        f"connect(host='h', password='{CANARY} x')",
        f'Client(api_key="{CANARY}", timeout=3)',
        f"host=db user=u password={CANARY} dbname=x",
        f"adapters.completer.api_key={CANARY}",
        f"AWS_SECRET_ACCESS_KEY={CANARY}",
        f'password="{CANARY}',
    ],
)
def test_a_secret_that_is_assigned_in_a_text_is_masked(text: str) -> None:
    assert CANARY not in masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "settings are written key=value, such as workflow.epochs=3",
        "write adapters.completer.api_key=<value>, without a space",
        "(from argument adapters.completer.api_key=)",
        "password=None token=17 max_tokens=5 auth=True session=<Session> sort(key=lambda x: 1)",
        "password=$PASSWORD api_key=${KEY}",
        "pass@1=0.5 pass_rate=0.3 num_tokens=5",
    ],
)
def test_an_assignment_without_a_secret_stays_readable(text: str) -> None:
    assert masked(text) == text


@given(st.integers(0, 80), st.integers(20, 60))
def test_what_a_cut_leaves_of_a_secret_is_masked(before: int, longest: int) -> None:
    secret = "sk-live-0123456789abcdef"
    shortened = reprlib.Repr()
    shortened.maxstring = longest
    text = "." * before + secret + "y" * (80 - before)
    left = Secrets(SecretStr(secret)).masked(
        f"{shortened.repr(text)} {text[: before + longest % 24]}..."
    )
    assert not any(secret[i : i + 8] in left for i in range(len(secret) - 7))


def test_measurements_are_shown_whatever_their_names_are() -> None:
    metrics = {"pass@1": 0.5, "pass_rate": 1, "secret_recall": np.float32(0.25)}
    assert shown({"metrics": metrics, "password": 12345}) == {"metrics": metrics, "password": MASK}


class _Slots(Exception):
    __slots__ = ("said",)

    def __init__(self, said: str) -> None:
        self.said = said

    def __str__(self) -> str:
        return self.said


class _Repr(Exception):
    def __repr__(self) -> str:
        return CANARY


ERRORS = [SystemExit(CANARY), _Slots(CANARY), _Repr(), OSError(2, CANARY, CANARY)]


@pytest.mark.parametrize("error", ERRORS)
def test_what_an_error_keeps_outside_of_its_dictionary_is_masked(error: BaseException) -> None:
    seen = without_secrets(error, Secrets(SecretStr(CANARY)))
    kept = [getattr(seen, name, "") for name in ("code", "said", "strerror", "filename")]
    assert CANARY not in f"{seen} {seen!r} {kept}"


class _Odd(BaseException):
    pass


@pytest.mark.parametrize("kind", [SystemExit, _Odd, ValueError])
def test_whatever_a_workflow_raises_shows_no_secret(kind: type[BaseException]) -> None:
    class Config(WorkflowConfig):
        password: str

    def work(kitchen: Kitchen, config: Config) -> None:
        raise kind(f"bye {config.password}")

    work.__annotations__["config"] = Config
    with pytest.raises(kind, match="bye") as caught:
        run(work, {"password": CANARY})
    assert CANARY not in f"{caught.value} {caught.value!r} {getattr(caught.value, 'code', '')!r}"


def test_names_of_events_and_objects_in_them_show_no_secret() -> None:
    kitchen = Kitchen()
    events: list[Any] = []
    kitchen.conceal({"password": CANARY})
    kitchen.observe(events.append)
    kitchen.observers.emit(f"mine {CANARY}", error=ValueError(CANARY), count=np.float32(1))
    assert CANARY not in repr(events)
    assert events[0].attributes["count"] == 1
