"""What castoff-freeze reads: entries, smoke descriptions, locks; and what it says when they make no sense."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from castoff_freeze.distributions import read_lock
from castoff_freeze.entry import Entry, launcher, parse_entry
from castoff_freeze.errors import EntryError, LockError, UsageError
from castoff_freeze.smoke import Command, Request, read_smoke


def test_an_entry_is_told_by_its_form(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.touch()
    assert parse_entry("pkg.web:app").kind == "app"
    assert parse_entry("pkg.web:make()").kind == "app"
    assert parse_entry("gunicorn-like").kind == "console"
    assert parse_entry("", module="pkg.sub") == Entry("module", "pkg.sub", name="pkg")
    assert parse_entry(str(script)) == Entry("script", str(script), name="run", origin=str(script))


@pytest.mark.parametrize(
    ("text", "module", "server"),
    [
        ("", "", ""),
        ("a:b", "c", ""),
        ("", "no-module", ""),
        ("a b", "", ""),
        ("no/script.py", "", ""),
        ("a:b", "", "x"),
    ],
)
def test_what_is_no_entry_is_refused(text: str, module: str, server: str) -> None:
    with pytest.raises(EntryError):
        parse_entry(text, module=module, server=server)


@pytest.mark.parametrize(
    "entry",
    [
        Entry("app", "web:app", "uvicorn", arguments=("--root-path", "/{x}")),
        Entry("module", "pkg", arguments=("it's",)),
        Entry("script", "/app/it's.py"),
        Entry("console", "pkg.cli:Main.run", name="tool"),
    ],
)
def test_a_launcher_is_valid_python_whatever_the_names_are(entry: Entry) -> None:
    text = launcher(entry, "/usr/bin/python3", ["/app/it's", "/lib"])
    assert text.startswith("#!/usr/bin/python3\n")
    ast.parse(text)


def test_a_smoke_description_is_read(tmp_path: Path) -> None:
    file = tmp_path / "smoke.toml"
    file.write_text(
        """
        [service]
        port = 9000
        ready = "/health"
        environment = { A = "b" }
        [[request]]
        method = "post"
        path = "/x?y=1"
        headers = { Accept = "text/html" }
        json = { a = [1] }
        status = 201
        ignore = ["id"]
        compare = "type"
        [[request]]
        """
    )
    smoke = read_smoke(str(file))
    assert (smoke.port, smoke.ready, dict(smoke.environment)) == (9000, "/health", {"A": "b"})
    headers = {"accept": "text/html", "content-type": "application/json"}
    assert smoke.requests == (
        Request("POST", "/x?y=1", headers, b'{"a":[1]}', 201, ("id",), False),
        Request("GET", "/"),
    )
    file.write_text('[[command]]\narguments = ["--version"]\nexit = 3\n')
    assert read_smoke(str(file)).asked == (Command(("--version",), b"", 3),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "requests or commands"),
        ("[[request]]\n[[command]]\n", "requests or commands"),
        ("x = ", "not TOML"),
        ("[[request]]\nstatu = 1\n", "statu"),
        ("[[request]]\nstatus = 'a'\n", "status must be a whole number"),
        ("[[request]]\nstatus = true\n", "status must be a whole number"),
        ("[[request]]\npath = 'x'\n", "must begin with /"),
        ("[[request]]\npath = '/ HTTP/1.1'\n", "no blanks"),
        ("[[request]]\nmethod = 'EAT'\n", "EAT"),
        ('[[request]]\nheaders = { a = "b\\r\\nc: d" }\n', "line breaks"),
        ("[service]\nport = 70000\n[[request]]\n", "port"),
        ("request = 3\n", "list"),
        ("request = [3]\n", "table"),
        ("[service]\nenvironment = { a = 1 }\n[[request]]\n", "texts only"),
    ],
)
def test_a_wrong_smoke_description_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "smoke.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_smoke(str(file))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value).partition(" is not TOML: ")[0]


def test_an_absent_smoke_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: No such file"):
        read_smoke(str(tmp_path / "none.toml"))


def test_a_lock_is_read(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(
        "# made by a tool\n--index-url x\nA_b.C==1.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n"
        "d[extra]==2 ; python_version < '3.9' \\\n    --hash=sha256:22\nd==3 ; python_version >= '3.9'\n"
    )
    assert read_lock(str(lock)) == {"a-b-c": (("1.0",), False), "d": (("2", "3"), True)}


@pytest.mark.parametrize("text", ["", "# nothing\n", "a>=1\n", "./local\n"])
def test_a_lock_that_pins_nothing_is_refused(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "lock"
    lock.write_text(text)
    with pytest.raises(LockError):
        read_lock(str(lock))
