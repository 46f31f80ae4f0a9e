"""Locks: what they hold, what they are compared with, and their file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import ConfigurationError
from crucible_kitchen.installing.restoring import plan
from crucible_kitchen.locking import Lock, Locked, digests, pylock, sources
from crucible_kitchen.locking.environment import Environment
from crucible_kitchen.locking.lock import differences
from crucible_kitchen.locking.taking import as_is, installed
from packaging.pylock import Pylock

DIGEST, OTHER = "a" * 64, "b" * 64


def hash_of(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(data)}"


def install(
    site: Path,
    name: str,
    version: str = "1.0",
    requires: tuple[str, ...] = (),
    files: Mapping[str, bytes] | None = None,
    **notes: str,
) -> Path:
    """Put a distribution into a folder as pip leaves it; return its `.dist-info` folder.

    `notes` are files of an installer, such as `direct_url`.
    """
    about = site / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    metadata = ("\n".join(lines) + "\n\nText\nRequires-Dist: not-this\n").encode()
    found = {f"{name}.py": b"", **(files or {}), f"{about.name}/METADATA": metadata}
    for path, data in found.items():
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_bytes(data)
    record = [f"{path},{hash_of(data)}" for path, data in found.items()]
    record += [f"{about.name}/INSTALLER,{hash_of(b'pip')}", f"{about.name}/RECORD,,"]
    record += [f"../../../bin/{name},{hash_of(b'a script')}", f"__pycache__/{name}.pyc,,"]
    (about / "RECORD").write_text("\n".join(record) + "\n")
    (about / "INSTALLER").write_bytes(b"pip")
    for note, text in notes.items():
        (about / f"{note}.json").write_text(text)
    return about


def wheel(folder: Path, name: str, files: Mapping[str, bytes], version: str = "1.0") -> Path:
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n"
    found = {**files, f"{about}/METADATA": (metadata + "Requires-Dist: not-this\n").encode()}
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, data in found.items():
            archive.writestr(path, data)
        record = [f"{path},{hash_of(data)}" for path, data in found.items()]
        archive.writestr(f"{about}/RECORD", "\n".join([*record, f"{about}/RECORD,,", ""]))
    return file


def environment(site: Path) -> Environment:
    return Environment("python", "3.11.4", (str(site),), str(site))


def closed(site: Path, **roots: list[str] | None) -> list[str]:
    """Return what is required; None stands for the extras that are complete."""
    here = environment(site)
    found, missing = here.closure(
        {n: here.extras_of(n) if extras is None else extras for n, extras in roots.items()}
    )
    return [*found, *(f"-{name}" for name in missing)]


# --- what is installed ---


def test_a_lock_has_what_is_required_by_what_is_required(tmp_path: Path) -> None:
    install(tmp_path, "top", requires=("middle>=1", "never; python_version < '3'"))
    install(tmp_path, "middle", requires=("bottom (>=1)",))
    install(tmp_path, "bottom", requires=("top",))
    install(tmp_path, "unrelated")
    assert closed(tmp_path, top=[]) == ["bottom", "middle", "top"]


def test_what_is_required_and_not_installed_is_named_with_what_requires_it(tmp_path: Path) -> None:
    install(tmp_path, "top", requires=("gone",))
    assert environment(tmp_path).closure({"top": []})[1] == {"gone": "top"}


def test_names_are_compared_as_indexes_do(tmp_path: Path) -> None:
    install(tmp_path, "Top_Level", requires=("Some.Thing",))
    install(tmp_path, "some_thing")
    assert closed(tmp_path, **{"top-level": []}) == ["some-thing", "top-level"]


def test_what_an_extra_adds_counts_where_the_extra_is_asked_for(tmp_path: Path) -> None:
    install(tmp_path, "top", requires=("middle[fast]",))
    install(tmp_path, "middle", requires=("quick; extra == 'fast'", "odd; extra == 'other'"))
    install(tmp_path, "quick")
    install(tmp_path, "odd")
    assert closed(tmp_path, top=[]) == ["middle", "quick", "top"]


def test_an_extra_of_a_plugin_counts_if_all_that_it_adds_is_installed(tmp_path: Path) -> None:
    install(
        tmp_path, "top", requires=("a; extra == 's3'", "b; extra == 'dev'", "a; extra == 'dev'")
    )
    install(tmp_path, "a")
    assert closed(tmp_path, top=None) == ["a", "top"]


def test_an_extra_of_a_plugin_does_not_count_if_what_it_adds_lacks_something(
    tmp_path: Path,
) -> None:
    extras = ("a[s3]; extra == 's3'", "top[s3]; extra == 'all'", "b; extra == 'b'")
    install(tmp_path, "top", requires=extras)
    install(tmp_path, "a", requires=("s3fs; extra == 's3'",))
    install(tmp_path, "b", requires=("top[b]",))
    assert closed(tmp_path, top=None) == ["b", "top"]
    install(tmp_path, "s3fs")
    assert closed(tmp_path, top=None) == ["a", "b", "s3fs", "top"]


def test_what_setuptools_left_as_an_egg_counts(tmp_path: Path) -> None:
    install(tmp_path, "top", requires=("old",))
    egg = tmp_path / "old-1.0.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 1.2\nName: Old\nVersion: 1.0\n")
    (egg / "requires.txt").write_text("below>=1\n")
    (tmp_path / "below-2.0.egg-info").write_text("Metadata-Version: 1.1\nName: below\nVersion: 2\n")
    assert closed(tmp_path, top=[]) == ["below", "old", "top"]


# --- digests ---


def test_a_wheel_and_what_was_is_of_it_have_one_digest(tmp_path: Path) -> None:
    files = {"acme.py": b"print()", "acme_data/a,b.txt": b"comma"}
    about = install(tmp_path / "site", "acme", files=files)
    file = wheel(tmp_path, "acme", files)
    assert digests.of_wheel(file) == digests.of_installed(about) != ""


def test_the_order_in_which_an_installer_records_files_does_not_matter(tmp_path: Path) -> None:
    about = install(tmp_path, "acme", files={"acme.py": b"1", "more.py": b"2"})
    before = digests.of_installed(about)
    lines = (about / "RECORD").read_text().splitlines()
    (about / "RECORD").write_text("\n".join(reversed(lines)))
    assert digests.of_installed(about) == before


def test_a_byte_more_is_another_digest(tmp_path: Path) -> None:
    one = install(tmp_path / "one", "acme", files={"acme.py": b"1"})
    other = install(tmp_path / "other", "acme", files={"acme.py": b"2"})
    assert digests.of_installed(one) != digests.of_installed(other)


def test_what_installers_add_is_not_in_the_digest(tmp_path: Path) -> None:
    one = install(tmp_path / "one", "acme")
    other = install(tmp_path / "other", "acme")
    with open(other / "RECORD", "a") as record:
        record.write(f"{other.name}/direct_url.json,{hash_of(b'x')}\n../../bin/x,{hash_of(b'y')}\n")
    assert digests.of_installed(one) == digests.of_installed(other)


@pytest.mark.parametrize("contents", [True, False])
def test_a_file_that_was_changed_since_is_named(tmp_path: Path, contents: bool) -> None:
    about = install(tmp_path, "acme", files={"acme.py": b"1"})
    assert digests.altered(about, contents=contents) == ""
    (tmp_path / "acme.py").write_bytes(b"2" if contents else b"22")
    assert digests.altered(about, contents=contents) == "acme.py"
    (tmp_path / "acme.py").unlink()
    assert digests.altered(about, contents=contents) == "acme.py"


def test_hashes_of_other_kinds_count_as_well(tmp_path: Path) -> None:
    about = install(tmp_path, "acme", files={"acme.py": b"1"})
    digest = base64.urlsafe_b64encode(hashlib.sha512(b"1").digest()).rstrip(b"=").decode()
    (about / "RECORD").write_text(f"acme.py,sha512={digest},1\n")
    before = digests.of_installed(about)
    assert before
    assert digests.altered(about, contents=True) == ""
    (tmp_path / "acme.py").write_bytes(b"2")
    assert digests.altered(about, contents=True) == "acme.py"
    (about / "RECORD").write_text(f"acme.py,sha512={digest[::-1]},1\n")
    assert digests.of_installed(about) != before


@pytest.mark.parametrize(
    ("path", "noticed"),
    [
        ("acme/evil.py", True),
        ("acme/data/evil.py", True),
        ("acme/store/__init__.py", True),
        ("acme/notes.txt", False),
        ("acme/__pycache__/x.cpython-311.pyc", False),
        ("acme/cache/data.py", False),
        ("space/other.py", False),
        ("evil.py", False),
    ],
)
def test_a_module_that_was_not_installed_is_named(tmp_path: Path, path: str, noticed: bool) -> None:
    names = ("acme/__init__.py", "acme/store.py", "space/mine.py")
    about = install(tmp_path, "acme", files=dict.fromkeys(names, b""))
    (tmp_path / "acme" / "data").mkdir()
    with open(about / "RECORD", "a") as record:
        record.write(f"acme/data/words.txt,{hash_of(b'')}\n")
    assert digests.added(about) == ""
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_bytes(b"")
    expected = str(Path(path).parent) if path.endswith("__init__.py") else path
    assert digests.added(about) == (expected if noticed else "")


# --- where it came from ---


@pytest.mark.parametrize(
    ("note", "source"),
    [
        (
            {
                "url": "file:///w/acme-1.0-py3-none-any.whl",
                "archive_info": {"hashes": {"sha256": DIGEST}},
            },
            {
                "wheels": [
                    {
                        "name": "acme-1.0-py3-none-any.whl",
                        "path": "/w/acme-1.0-py3-none-any.whl",
                        "hashes": {"sha256": DIGEST},
                    }
                ]
            },
        ),
        (
            {
                "url": "https://ann:sesame@host/acme.tar.gz",
                "archive_info": {"hash": f"sha256={DIGEST}"},
            },
            {"archive": {"url": "https://host/acme.tar.gz", "hashes": {"sha256": DIGEST}}},
        ),
        (
            {"url": "file:///src/acme", "dir_info": {"editable": True}},
            {"directory": {"path": "/src/acme", "editable": True}},
        ),
        ({"url": "file:///src/acme", "dir_info": {}}, {"directory": {"path": "/src/acme"}}),
        (
            {"url": "https://host/acme.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            {"vcs": {"type": "git", "url": "https://host/acme.git", "commit-id": "abc"}},
        ),
        (
            {
                "url": "ssh://git@host/acme.git",
                "vcs_info": {"vcs": "git", "commit_id": "abc"},
                "subdirectory": "plugins/acme",
            },
            {
                "vcs": {
                    "type": "git",
                    "url": "ssh://git@host/acme.git",
                    "commit-id": "abc",
                    "subdirectory": "plugins/acme",
                }
            },
        ),
        (
            {
                "url": "https://host/acme.zip",
                "archive_info": {"hashes": {"sha256": DIGEST}},
                "subdirectory": "acme",
            },
            {
                "archive": {
                    "url": "https://host/acme.zip",
                    "hashes": {"sha256": DIGEST},
                    "subdirectory": "acme",
                }
            },
        ),
        ({"url": "https://host/acme.whl", "archive_info": {}}, {}),
        ({"surprise": 1}, {}),
    ],
)
def test_what_an_installer_noted_is_the_source(
    tmp_path: Path, note: dict[str, Any], source: dict[str, Any]
) -> None:
    install(tmp_path, "acme", direct_url=json.dumps(note))
    found = environment(tmp_path).find("acme")
    assert found is not None
    assert sources.noted(found) == source


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://ann:sesame@host/a.git", "https://host/a.git"),
        ("https://sesame@host/a.git", "https://host/a.git"),
        ("https://git:sesame@host/a.git", "https://git@host/a.git"),
        ("https://${USER}:${TOKEN}@host/a.git", "https://${USER}:${TOKEN}@host/a.git"),
        ("ssh://git@host/a.git", "ssh://git@host/a.git"),
        ("ssh://ann:sesame@host/a.git", "ssh://ann@host/a.git"),
        ("https://host/a.whl?token=sesame&sesame#sesame", "https://host/a.whl?token=*&*"),
    ],
)
def test_a_url_is_locked_without_what_may_be_secret(url: str, written: str) -> None:
    assert sources.without_secrets(url).replace("*" * 10, "*") == written


def test_what_was_locked_without_its_query_is_not_asked_for(tmp_path: Path) -> None:
    note = {"url": "https://host/acme-1.0-py3-none-any.whl?token=sesame"}
    note |= {"archive_info": {"hashes": {"sha256": DIGEST}}}  # type: ignore[dict-item]
    install(tmp_path, "acme", direct_url=json.dumps(note))
    found = environment(tmp_path).find("acme")
    assert found is not None
    lock = Lock("3.11.4", {"acme": Locked("1.0", "", sources.noted(found))})
    assert lock.cut == ["acme"]
    with pytest.raises(ConfigurationError, match=r"acme: .* was locked without what may be"):
        plan(lock, Lock("3.11.4", {}))
    assert plan(lock, Lock("3.11.4", {}), by_name=True).lines == [
        f"acme==1.0 --hash=sha256:{DIGEST}"
    ]


def test_a_wheel_in_a_folder_is_found_by_its_files(tmp_path: Path) -> None:
    about = install(tmp_path / "site", "acme", files={"acme.py": b"1"})
    file = wheel(tmp_path / "wheels", "acme", {"acme.py": b"1"})
    wheel(tmp_path / "wheels", "acme", {"acme.py": b"1"}, version="2.0")
    wanted = {"acme": ("1.0", digests.of_installed(about))}
    [found] = sources.in_folders([tmp_path / "wheels"], wanted)["acme"]["wheels"]
    assert found["path"] == str(file)
    assert found["hashes"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_wheel_of_the_same_version_with_other_files_is_refused(tmp_path: Path) -> None:
    wheel(tmp_path, "acme", {"acme.py": b"2"})
    with pytest.raises(ConfigurationError, match="has the version of acme that is installed"):
        sources.in_folders([tmp_path], {"acme": ("1.0", DIGEST)})


# --- differences ---

LOCK = Lock(
    "3.11.4",
    {"acme": Locked("1.0", DIGEST), "numpy": Locked("2.0", DIGEST)},
    {"blob_store.acme": "acme"},
    {"acme blob_store.json": OTHER},
    {"acme": ("s3",)},
)


def changed(**fields: Any) -> list[str]:
    now = {name: getattr(LOCK, name) for name in ("python", "packages", "plugins", "cards")}
    return list(differences(LOCK, Lock(**{**now, **fields})))


def test_what_is_as_it_was_locked_differs_in_nothing() -> None:
    assert changed() == []
    assert changed(python="3.11.9") == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"python": "3.12.0"}, "Python is 3.12.0, locked is 3.11.4"),
        ({"packages": {"acme": LOCK.packages["acme"]}}, "numpy 2.0 is not installed"),
        (
            {"packages": {**LOCK.packages, "numpy": Locked("2.1", OTHER)}},
            "numpy is 2.1, locked is 2.0",
        ),
        (
            {"packages": {**LOCK.packages, "numpy": Locked("2.0", OTHER)}},
            "numpy 2.0 has other files than the one that was locked",
        ),
        (
            {
                "packages": {
                    **LOCK.packages,
                    "numpy": Locked("2.0", "", {"directory": {"path": "/n", "editable": True}}),
                }
            },
            "numpy is installed in editable form, locked in a copy",
        ),
        (
            {"packages": {**LOCK.packages, "more": Locked("3.0")}},
            "more 3.0 is required, and is not in the lock",
        ),
        (
            {"plugins": {**LOCK.plugins, "completer.x": "x-package"}},
            "completer.x (x-package) is chosen, and is not in the lock",
        ),
        (
            {"plugins": {"blob_store.acme": "evil"}},
            "blob_store.acme comes from evil, locked is that of acme",
        ),
        (
            {"cards": {"acme blob_store.json": DIGEST}},
            "the report card acme blob_store.json is not the one that was locked",
        ),
        ({"cards": {}}, "the report card acme blob_store.json is gone"),
    ],
)
def test_each_difference_is_said(fields: dict[str, Any], said: str) -> None:
    assert changed(**fields)[0] == said


# --- its file ---


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    wheel_ = {
        "name": "acme-1.0-py3-none-any.whl",
        "path": str(tmp_path / "w" / "acme-1.0-py3-none-any.whl"),
    }
    source = {"wheels": [{**wheel_, "hashes": {"sha256": DIGEST}}]}
    lock = Lock(
        LOCK.python,
        {
            "acme": Locked("1.0", DIGEST, source),
            "mine": Locked("1.0", "", {"directory": {"path": str(tmp_path), "editable": True}}),
            "numpy": Locked("2.0", DIGEST),
        },
        LOCK.plugins,
        LOCK.cards,
        LOCK.extras,
    )
    pylock.write(lock, tmp_path / "pylock.toml")
    pylock.write(lock, tmp_path / "pylock.toml")
    assert pylock.read(tmp_path / "pylock.toml") == lock
    assert [path.name for path in tmp_path.iterdir()] == ["pylock.toml"]


def test_a_lock_whose_sources_are_known_is_a_lock_of_the_standard(tmp_path: Path) -> None:
    wheel_ = {"name": "acme-1.0-py3-none-any.whl", "url": "https://host/acme-1.0-py3-none-any.whl"}
    source = {"wheels": [{**wheel_, "hashes": {"sha256": DIGEST}}]}
    pylock.write(Lock("3.11.4", {"acme": Locked("1.0", DIGEST, source)}), tmp_path / "pylock.toml")
    document = tomllib.loads((tmp_path / "pylock.toml").read_text())
    Pylock.from_dict(document)
    assert document["requires-python"] == "==3.11.*"


def test_paths_are_relative_to_the_lock_so_that_it_moves_with_its_wheels(tmp_path: Path) -> None:
    place = tmp_path / "here" / "wheels" / "acme-1.0-py3-none-any.whl"
    source = {"wheels": [{"name": place.name, "path": str(place), "hashes": {"sha256": DIGEST}}]}
    (tmp_path / "here").mkdir()
    pylock.write(Lock("3.11.4", {"acme": Locked("1.0", "", source)}), tmp_path / "here/pylock.toml")
    os.rename(tmp_path / "here", tmp_path / "there")
    [found] = pylock.read(tmp_path / "there/pylock.toml").packages["acme"].source["wheels"]
    assert found["path"] == str(tmp_path / "there" / "wheels" / place.name)


def test_the_lock_of_another_tool_is_read_and_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "pylock.toml"
    file.write_text(
        'lock-version = "1.0"\ncreated-by = "uv"\n[[packages]]\nname = "acme"\nversion = "1.0"\n'
        f'[[packages.wheels]]\nurl = "https://host/acme-1.0-py3-none-any.whl"\n'
        f'hashes = {{ sha256 = "{DIGEST}" }}\n'
    )
    [found] = pylock.read(file).packages["acme"].source["wheels"]
    assert found["hashes"] == {"sha256": DIGEST}
    with pytest.raises(ConfigurationError, match="was not written by `crucible lock`"):
        pylock.write(LOCK, file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lock-version"),
        ("[[", "not valid TOML"),
        ('lock-version = "2.0"\ncreated-by = "x"\npackages = []', "2.0"),
        ('lock-version = "1.0"\ncreated-by = "x"\npackages = ["acme"]', "no name or version"),
        ('lock-version = "1.0"\ncreated-by = "x"\npackages = 5', "packages"),
        (
            'lock-version = "1.0"\ncreated-by = "x"\npackages = []\n[tool.crucible]\npython = 3',
            "damaged",
        ),
    ],
)
def test_what_is_not_a_lock_is_refused_with_the_reason(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "pylock.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        pylock.read(tmp_path / "pylock.toml")


def other_lock(folder: Path, *entries: str, head: str = "") -> Path:
    """Write a lock of another tool; an entry has `%` in place of the name of a wheel of it."""
    text = f'lock-version = "1.0"\ncreated-by = "uv"\n{head}\n'
    text += "" if entries else "packages = []\n"
    for entry in entries:
        text += f"[[packages]]\n{entry}\n"
    file = folder / "pylock.toml"
    file.write_text(text)
    return file


def numpy_(version: str, marker: str) -> str:
    file = f"https://host/numpy-{version}-py3-none-any.whl"
    wheels = f'wheels = [{{ url = "{file}", hashes = {{ sha256 = "{DIGEST}" }} }}]'
    return f'name = "numpy"\nversion = "{version}"\nmarker = "{marker}"\n{wheels}'


def test_of_several_versions_the_one_for_this_python_counts(tmp_path: Path) -> None:
    new, old = (
        numpy_("2.4.0", "python_version >= '3.10'"),
        numpy_("2.0.2", "python_version < '3.10'"),
    )
    file = other_lock(tmp_path, new, old, numpy_("1.0", "'old' in extras"))
    assert pylock.read(file).packages["numpy"].version == "2.4.0"
    assert pylock.read(file, "3.9.2").packages["numpy"].version == "2.0.2"


def test_what_is_locked_for_another_platform_is_not_asked_for(tmp_path: Path) -> None:
    file = other_lock(tmp_path, numpy_("2.4.0", "sys_platform == 'nowhere'"))
    assert pylock.read(file).packages == {}


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ('requires-python = ">=99"', "does not satisfy the Python version"),
        ("environments = [\"sys_platform == 'nowhere'\"]", "any of the environments"),
    ],
)
def test_a_lock_for_another_environment_is_refused(tmp_path: Path, head: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"is not for this environment: .*{said}"):
        pylock.read(other_lock(tmp_path, head=head))


def test_two_versions_at_once_are_refused(tmp_path: Path) -> None:
    always = "python_version > '3'"
    file = other_lock(tmp_path, numpy_("2.4.0", always), numpy_("2.0.2", always))
    with pytest.raises(ConfigurationError, match="Multiple packages with the name"):
        pylock.read(file)


def test_our_lock_of_another_python_is_read_to_say_all_that_differs(tmp_path: Path) -> None:
    pylock.write(Lock("3.2.1", LOCK.packages), tmp_path / "pylock.toml")
    assert pylock.read(tmp_path / "pylock.toml").python == "3.2.1"


@pytest.mark.parametrize(
    "entry",
    [
        'name = "x\\n--index-url=https://evil/simple\\ny"\nversion = "1"',
        'name = "Foo_Bar"\nversion = "1"',
        'name = "foo"\nversion = "1 --index-url=https://evil"',
    ],
)
def test_what_is_no_name_or_version_is_refused_without_a_source_too(
    tmp_path: Path, entry: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a lock: .*'packages\[0\]"):
        pylock.read(other_lock(tmp_path, entry))


def test_a_folder_has_no_version_in_the_lock_of_another_tool(tmp_path: Path) -> None:
    file = other_lock(tmp_path, 'name = "acme"\ndirectory = { path = "." }')
    lock = pylock.read(file)
    install(tmp_path / "site", "acme", "3.0")
    now = there(tmp_path / "site", lock)
    assert list(differences(lock, now)) == []
    assert plan(lock, now).changes == []
    assert plan(lock, Lock("3.11.4", {})).lines == [f"acme @ {tmp_path.as_uri()}"]


@pytest.mark.parametrize("name", ["lock.toml", "pylock.a.b.toml"])
def test_a_name_that_the_standard_does_not_allow_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"pylock\.<name>\.toml"):
        pylock.write(LOCK, tmp_path / name)


def test_the_record_of_a_run_holds_the_lock(tmp_path: Path) -> None:
    assert Lock.of_record(json.loads(json.dumps(LOCK.record()))) == LOCK


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {**LOCK.record(), "packages": {"a": 1}},
        {**LOCK.record(), "packages": {"a\n-e .": "1.0"}},
        {**LOCK.record(), "packages": {"a": "new"}},
        {**LOCK.record(), "extras": {"a": "s3"}},
        {**LOCK.record(), "extras": {"a": [1]}},
        "text",
    ],
)
def test_a_damaged_lock_of_a_record_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"it|name|version"):
        Lock.of_record(data)


# --- what restores it ---


def there(site: Path, lock: Lock) -> Lock:
    return installed(lock, environment(site))


def test_what_is_there_as_it_was_locked_is_left_alone(tmp_path: Path) -> None:
    about = install(tmp_path, "acme")
    lock = Lock("3.11.4", {"acme": Locked("1.0", digests.of_installed(about))})
    assert plan(lock, there(tmp_path, lock)).changes == []


@pytest.mark.parametrize("known", [True, False])
def test_what_was_changed_since_is_installed_again(tmp_path: Path, known: bool) -> None:
    about = install(tmp_path, "acme", files={"acme.py": b"1"})
    lock = Lock("3.11.4", {"acme": Locked("1.0", digests.of_installed(about) if known else "")})
    (tmp_path / "acme.py").write_bytes(b"22")
    found = plan(lock, as_is(lock, environment(tmp_path)))
    assert found.changes == [("acme", "1.0, other files", "1.0")]
    assert found.altered


def test_a_requirement_names_its_file_and_its_hash(tmp_path: Path) -> None:
    file = wheel(tmp_path, "acme", {})
    entry = {"name": file.name, "path": str(file), "hashes": {"sha256": DIGEST}}
    source = {"wheels": [entry]}
    lock = Lock("3.11.4", {"acme": Locked("1.0", "", source), "numpy": Locked("2.0", DIGEST)})
    found = plan(lock, Lock("3.11.9", {}))
    assert found.hashed == [f"acme @ {file.as_uri()} --hash=sha256:{DIGEST}"]
    assert found.plain == ["numpy==2.0"]
    assert not found.needs_no_index
    by_name = plan(lock, Lock("3.11.9", {}), by_name=True)
    assert by_name.hashed == [f"acme==1.0 --hash=sha256:{DIGEST}"]


def test_a_file_that_is_not_where_the_lock_says_is_named_before_anything_starts() -> None:
    entry = {"path": "/gone/acme-1.0-py3-none-any.whl", "hashes": {"sha256": DIGEST}}
    lock = Lock("3.11.4", {"acme": Locked("1.0", "", {"wheels": [entry]})})
    with pytest.raises(ConfigurationError, match=r"acme: /gone/.* is not there; .*--find-links"):
        plan(lock, Lock("3.11.4", {}))


def test_of_several_wheels_the_one_for_this_platform_is_taken() -> None:
    urls = [f"https://host/acme-1.0-{tags}.whl" for tags in ("cp27-none-win32", "py3-none-any")]
    wheels = [{"url": url, "hashes": {"sha256": DIGEST}} for url in urls]
    lock = Lock("3.11.4", {"acme": Locked("1.0", "", {"wheels": wheels})})
    assert plan(lock, Lock("3.11.4", {})).hashed == [f"acme @ {urls[1]} --hash=sha256:{DIGEST}"]
    lock = Lock("3.11.4", {"acme": Locked("1.0", "", {"wheels": wheels[:1]})})
    with pytest.raises(ConfigurationError, match="no wheel in the lock is for this platform"):
        plan(lock, Lock("3.11.4", {}))


def lines_of(source: dict[str, Any], **how: bool) -> list[str]:
    """Return what an installer is asked for where a distribution has this source."""
    lock = Lock("3.11.4", {"acme": Locked("1.0", "", source)})
    return list(plan(lock, Lock("3.11.4", {}), **how).lines)


def test_a_folder_with_a_space_in_its_name_is_one_word(tmp_path: Path) -> None:
    folder = tmp_path / "my #1 dir"
    folder.mkdir()
    [line] = lines_of({"directory": {"path": str(folder), "editable": True}})
    assert line == f"-e {folder.as_uri()}"
    assert line.endswith("/my%20%231%20dir")


def test_a_folder_inside_a_repository_or_an_archive_is_asked_for(tmp_path: Path) -> None:
    vcs = {"type": "git", "url": "https://host/a.git", "commit-id": "abc", "subdirectory": "b/c"}
    assert lines_of({"vcs": vcs}) == ["acme @ git+https://host/a.git@abc#subdirectory=b/c"]
    del vcs["url"]
    [line] = lines_of({"vcs": {**vcs, "path": str(tmp_path)}})
    assert line == f"acme @ git+{tmp_path.as_uri()}@abc#subdirectory=b/c"
    archive = {"url": "https://host/a.zip", "hashes": {"sha256": DIGEST}, "subdirectory": "b"}
    asked = f"acme @ https://host/a.zip#subdirectory=b --hash=sha256:{DIGEST}"
    assert lines_of({"archive": archive}) == [asked]


@pytest.mark.parametrize(
    "place",
    [
        {"url": "https://host/a.git -r /etc/passwd"},
        {"url": "https://host/a.git\n--index-url=https://evil"},
        {"url": "https://host/a.git", "subdirectory": "b --pre"},
        {"url": "https://host/a.git", "commit-id": "abc\n-e ."},
    ],
)
def test_an_address_cannot_bring_options_of_the_installer(place: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="which is not an address"):
        lines_of({"vcs": {"type": "git", "commit-id": "abc", **place}})


@pytest.mark.parametrize("by_name", [True, False])
def test_the_strongest_hash_is_checked(by_name: bool) -> None:
    hashes = {"md5": "0", "sha256": DIGEST, "sha512": OTHER * 2}
    source = {"wheels": [{"url": "https://host/acme-1.0-py3-none-any.whl", "hashes": hashes}]}
    [line] = lines_of(source, by_name=by_name)
    assert line.partition(" --hash=")[2] == f"sha512:{OTHER * 2}"


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("hashes", [{"md5": "0"}, {"sha256": "0 -e ."}])
def test_what_cannot_be_checked_is_not_installed(by_name: bool, hashes: dict[str, str]) -> None:
    source = {"wheels": [{"url": "https://host/acme-1.0-py3-none-any.whl", "hashes": hashes}]}
    with pytest.raises(ConfigurationError, match=r"acme: acme-1\.0-.* has no hash .* sha512"):
        lines_of(source, by_name=by_name)


def test_an_index_is_left_out_only_where_nothing_is_built(tmp_path: Path) -> None:
    file = wheel(tmp_path, "acme", {})
    wheels = {"wheels": [{"path": str(file), "hashes": {"sha256": DIGEST}}]}
    folder = {"directory": {"path": str(tmp_path)}}

    def needs_no_index(source: dict[str, Any]) -> bool:
        lock = Lock("3.11.4", {"acme": Locked("1.0", "", source)})
        return plan(lock, Lock("3.11.4", {})).needs_no_index

    assert needs_no_index(wheels)
    assert not needs_no_index(folder)
    assert not needs_no_index({"directory": {"path": str(tmp_path), "editable": True}})


def test_wheels_are_chosen_for_the_python_of_the_other_environment() -> None:
    tags = ("cp313-cp313-win32", "cp310-abi3-win32", "cp38-none-any", "cp313-none-any")
    wheels = [
        {"url": f"https://host/acme-1.0-{tag}.whl", "hashes": {"sha256": DIGEST}} for tag in tags
    ]
    lock = Lock("3.13.1", {"acme": Locked("1.0", "", {"wheels": wheels})})
    [line] = plan(lock, Lock("3.13.7", {})).lines
    assert "cp313-none-any" in line


def test_a_lock_of_another_python_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"for Python 3\.11, and this is Python 3\.12\.1"):
        plan(LOCK, Lock("3.12.1", {}))
