"""Completion scripts in the shells that they are for, and manual pages in the programs that show them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from castoff.cli.main import main
from castoff.cli.outline import outline
from castoff.cli.parser import VERBS
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image

BASH = """\
source "$1"
COMP_LINE=$2
COMP_POINT=${#COMP_LINE}
_castoff
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give an environment with a castoff on PATH and a store with two images."""
    folder = tmp_path_factory.mktemp("completion")
    program = folder / "castoff"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m castoff "$@"\n')
    program.chmod(0o755)
    with DirectoryStore.open_(str(folder / "store")) as store:
        random_image(store, "app:1.0", seed=1)
        random_image(store, "ghcr.io/team/api:2", seed=2)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CASTOFF_ROOT": str(folder / "store")}


@pytest.fixture(scope="module")
def script(place: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    done = subprocess.run(["castoff", "completion", "bash"], env=place, capture_output=True, check=True)
    path = tmp_path_factory.mktemp("script") / "castoff.bash"
    path.write_bytes(done.stdout)
    return str(path)


def completed(script: str, place: dict[str, str], line: str, cwd: str | None = None) -> list[str]:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    command = [bash, "--norc", "--noprofile", "-c", BASH, "bash", script, line]
    done = subprocess.run(command, env=place, cwd=cwd, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_verbs(script: str, place: dict[str, str]) -> None:
    assert completed(script, place, "castoff pru") == ["prune"]
    first = {verb.partition(" ")[0] for verb in VERBS}
    assert set(completed(script, place, "castoff ")) == first | {"--root", "--version", "--help"}
    assert completed(script, place, "castoff base a") == ["assemble"]
    assert completed(script, place, "castoff --root /x si") == ["size"]


@pytest.mark.parametrize("verb", list(VERBS))
def test_bash_completes_every_option_of_every_verb(script: str, place: dict[str, str], verb: str) -> None:
    (one,) = [each for each in outline() if each.name == verb]
    expected = {name for option in one.options for name in option.names}
    assert set(completed(script, place, f"castoff {verb} -")) == expected


def test_bash_completes_images(script: str, place: dict[str, str]) -> None:
    assert completed(script, place, "castoff audit a") == ["app:1.0"]
    assert completed(script, place, "castoff tag ghcr") == ["ghcr.io/team/api:2"]
    # Bash replaces only what stands behind the last colon.
    assert completed(script, place, "castoff size app:") == ["1.0"]
    assert completed(script, place, "castoff audit --format json gh") == ["ghcr.io/team/api:2"]


def test_bash_completes_files(script: str, place: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "policy.toml").touch()
    assert completed(script, place, "castoff audit --policy pol", str(tmp_path)) == ["policy.toml"]
    assert completed(script, place, "castoff load -i p", str(tmp_path)) == ["policy.toml"]
    assert completed(script, place, "castoff completion z") == ["zsh"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_well_formed(place: dict[str, str], tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed (Debian package {shell})")
    text = subprocess.run(["castoff", "completion", shell], env=place, capture_output=True, check=True).stdout
    path = tmp_path / "script"
    path.write_bytes(text)
    done = subprocess.run(
        [program, "-n", str(path)], env={**place, "HOME": str(tmp_path)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_fish_completes(place: dict[str, str], tmp_path: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed (Debian package fish)")

    def offered(line: str) -> set[str]:
        program = f"castoff completion fish | source; complete -C '{line}'"
        done = subprocess.run(
            [fish, "--no-config", "-c", program], env={**place, "HOME": str(tmp_path)}, capture_output=True, check=True
        )
        return {row.partition("\t")[0] for row in done.stdout.decode().splitlines()}

    assert "prune" in offered("castoff pru")
    assert "--policy" in offered("castoff audit --pol")
    assert "app:1.0" in offered("castoff audit a")
    assert "assemble" in offered("castoff base ass")


def test_zsh_loads(place: dict[str, str], tmp_path: Path) -> None:
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not installed (Debian package zsh)")
    program = 'autoload -U compinit; compinit -u -D; source <(castoff completion zsh); print -r -- "$_comps[castoff]"'
    done = subprocess.run(
        [zsh, "-f", "-c", program], env={**place, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("_castoff", "")


def test_completion_of_another_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_references_of_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "references", "--root", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    assert main(["manpage", str(folder)]) == 0
    return folder


def test_there_is_a_page_for_each_verb(pages: Path) -> None:
    expected = {"castoff.1", *(f"castoff-{verb.replace(' ', '-')}.1" for verb in VERBS)}
    assert {path.name for path in pages.iterdir()} == expected


def test_pages_name_every_option(pages: Path) -> None:
    for verb in outline():
        text = (pages / f"castoff-{verb.name.replace(' ', '-')}.1").read_text(encoding="utf-8").replace("\\-", "-")
        for option in verb.options:
            for name in option.names:
                assert f"\\fB{name}\\fR" in text, (verb.name, name)


def test_man_shows_the_pages(pages: Path) -> None:
    man = shutil.which("man")
    if man is None or shutil.which("groff") is None:
        pytest.skip("man is not installed (Debian packages man-db and groff-base)")
    for page in sorted(pages.iterdir()):
        done = subprocess.run(
            [man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)],
            env={**os.environ, "MANROFFSEQ": "", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), page.name


def test_mandoc_finds_no_error_in_the_pages(pages: Path) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed (Debian package mandoc)")
    files = sorted(str(page) for page in pages.iterdir())
    done = subprocess.run([mandoc, "-T", "lint", "-W", "error", *files], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_pages_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["manpage", str(tmp_path / "file")]) == 6
    assert "can't be written" in capsys.readouterr().err
