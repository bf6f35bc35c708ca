"""``--chmod`` does what chmod(1) does."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from castoff.errors import DockerfileError
from castoff.ops import chmod

SPECS = [
    "0", "7", "644", "0755", "00755", "4755", "2755", "1777", "7777", "0000000000000000755",
    "u+x", "+x", "-w", "=r", "a=rwX", "u=rwX,go=rX", "go=", "g=u", "o=g", "u=g,o=u", "ug+rw-x", "u+rwx-w",
    "+X", "a-x+X", "u+s", "g+s", "ug=rxs", "+t", "o+t", "a+st", "u-s", "g-s", "=", "u=,g=,o=", "a+rw,o-w",
    "g+ws", "u+xs,g-s", "o=u-x", "u=rw,+X", "a=st", "-s", "-t", "ugo=rx", "go-rwx",
]  # fmt: skip
FILE_MODES = [0o000, 0o644, 0o755, 0o600, 0o711, 0o4755, 0o2755, 0o6711, 0o777, 0o010]
DIRECTORY_MODES = [0o700, 0o755, 0o777, 0o711]


def run_chmod(spec: str, paths: list[Path]) -> None:
    """Let chmod(1) change some files, with no umask in the way."""
    program = shutil.which("chmod")
    if program is None:
        pytest.skip("chmod(1) is not installed")
    before = os.umask(0)
    try:
        subprocess.run([program, "--", spec, *map(str, paths)], check=True, capture_output=True)
    finally:
        os.umask(before)


@pytest.mark.parametrize("spec", SPECS)
def test_files_and_directories_get_the_mode_that_chmod_gives(spec: str, tmp_path: Path) -> None:
    paths: list[Path] = []
    for mode in FILE_MODES:
        paths.append(tmp_path / f"file-{mode:o}")
        paths[-1].touch()
        paths[-1].chmod(mode)
    for mode in DIRECTORY_MODES:
        paths.append(tmp_path / f"folder-{mode:o}")
        paths[-1].mkdir()
        paths[-1].chmod(mode)
    before = [path.lstat().st_mode for path in paths]
    run_chmod(spec, paths)
    after = [path.lstat().st_mode for path in paths]
    for path in paths:
        path.chmod(0o700)
    assert [oct(chmod.apply(spec, mode)) for mode in before] == list(map(oct, after))


def test_octal_digits_replace_all_bits_of_a_directory() -> None:
    assert chmod.apply("755", stat.S_IFDIR | 0o7700) == stat.S_IFDIR | 0o755


def test_octal_tells_digits_from_symbols() -> None:
    assert chmod.octal("0750") == 0o750
    assert chmod.octal("u=rwx") is None
    assert chmod.octal("") is None
    assert chmod.octal("77777") is None


@pytest.mark.parametrize("spec", ["", "8", "77777", "10000", "u", "u+q", "z+x", "u=rw,", ",", "0x1ff", "rwx", "٧٥٥"])
def test_nonsense_is_refused(spec: str) -> None:
    with pytest.raises(DockerfileError):
        chmod.check(spec)
