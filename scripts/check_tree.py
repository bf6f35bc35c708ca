"""Check that nothing of this machine is in the tree: its paths, its package mirrors, its settings.

What to look for is read from the machine itself (where this clone lies, where Python and pip get things from, which
mirror apt uses), so that no such name need be written here. Lock files are also held to their form: names, versions
and hashes, and no address at all. Prints one line for each finding; exits 1 if there is any.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
PUBLIC_HOSTS = frozenset(
    {
        "github.com",
        "localhost",
        "127.0.0.1",
    }
)
SYSTEM_FOLDERS = frozenset(
    "/ /bin /dev /etc /home /lib /media /mnt /opt /proc /root /run /srv /sys /tmp /usr /usr/bin /usr/lib /usr/local "
    "/usr/share /var /var/lib /var/tmp /usr/share/keyrings /etc/ssl/certs".split()
)
LOCK_LINE = re.compile(
    r"""(?:[a-z0-9][a-z0-9._-]*==[A-Za-z0-9.!+_-]+(?:\ ;\ [^\\]+)?(?:\ \\)?
        |\ {4}--hash=sha256:[0-9a-f]{64}(?:\ \\)?
        |\#.*
        |)""",
    re.VERBOSE,
)
MAX_FILE_SIZE = 2 << 20


def main() -> int:
    """Print every finding and return the exit code."""
    findings = sorted(find())
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def find() -> Iterator[str]:
    """Yield ``file:line: what is wrong`` for the whole tree."""
    marks = {mark: why for mark, why in machine_marks() if not ours(mark)}
    pattern = re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)) or r"(?!)")
    for name in tree_files():
        path = ROOT / name
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        if len(data) > MAX_FILE_SIZE:
            yield f"{name}: {len(data)} bytes, more than {MAX_FILE_SIZE}"
        if b"\0" in data:
            continue
        is_requirements = path.parent.name == "requirements" and path.suffix == ".txt"
        for number, line in enumerate(data.decode("utf-8", "surrogateescape").splitlines(), 1):
            for found in pattern.finditer(line):
                yield f"{name}:{number}: names {marks[found.group()]}: {found.group()}"
            if path.suffix == ".lock" and "://" in line:
                yield f"{name}:{number}: a lock file with an address"
            if is_requirements and not LOCK_LINE.fullmatch(line):
                yield f"{name}:{number}: not a name, a version or a hash: {line.strip()}"


def ours(mark: str) -> bool:
    """Tell whether a mark is too general, or public, to count."""
    return mark in PUBLIC_HOSTS or mark in SYSTEM_FOLDERS or len(mark) < 6


def tree_files() -> list[str]:
    """List what is, or could be, committed; all but the hidden folders where this is no checkout of its own.

    A folder inside of another checkout, which may ignore it, is not asked about there.
    """
    command = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run([*command, "--exclude-standard"], capture_output=True, check=False)
    if (ROOT / ".git").exists() and listed.returncode == 0:
        return [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    found: list[str] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name == ".ci" or not name.startswith((".", "__pycache__"))]
        found.extend(os.path.relpath(os.path.join(folder, name), ROOT) for name in names)
    return found


def machine_marks() -> Iterator[tuple[str, str]]:
    """Yield strings that only this machine has, each with what it is."""
    yield str(ROOT), "the folder of this clone"
    for prefix in (sys.base_prefix, os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))):
        yield prefix, "the folder of this machine's Python"
    yield os.path.expanduser("~"), "the home directory of whoever ran this"
    for address in [*pip_addresses(), *apt_addresses(), *proxies()]:
        yield from address_marks(address)


def address_marks(address: str) -> Iterator[tuple[str, str]]:
    """Yield the host of an address, or its folder when it is a local one."""
    parts = urlsplit(address)
    if parts.scheme == "file" or address.startswith("/"):
        yield parts.path.rstrip("/"), "a folder that pip or apt of this machine uses"
    elif parts.hostname:
        yield parts.hostname, "a host that pip or apt of this machine uses"


def pip_addresses() -> list[str]:
    """List the addresses in pip's settings."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    lines = [line for line in text.splitlines() if "index" in line or "find-links" in line or "proxy" in line]
    return [word for line in lines for word in line.partition("=")[2].strip("'\"").replace("\\n", " ").split()]


def apt_addresses() -> list[str]:
    """List the addresses in apt's settings."""
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *folder.glob("sources.list.d/*"), *folder.glob("apt.conf.d/*")]
    text = "\n".join(file.read_text("utf-8", "replace") for file in files if file.is_file())
    return re.findall(r"\bhttps?://[^\s\"';]+", "\n".join(re.sub(r"#.*", "", line) for line in text.splitlines()))


def proxies() -> list[str]:
    """List the proxies that the environment names."""
    return [value for name, value in os.environ.items() if name.lower() in {"http_proxy", "https_proxy", "ftp_proxy"}]


if __name__ == "__main__":
    sys.exit(main())
