"""Programs that have no place in a runtime image, by their names."""

from __future__ import annotations

import re

SHELLS = frozenset(
    b"sh bash rbash dash ash zsh ksh ksh93 mksh lksh fish tcsh csh sash yash elvish nu pwsh busybox toybox".split()
)
PACKAGE_MANAGERS = frozenset(
    b"apt apt-get apt-cache aptitude dpkg dpkg-deb apk rpm yum dnf microdnf zypper pacman opkg snap flatpak nix-env"
    b" pip pip3 pipx uv poetry pdm conda mamba micromamba easy_install npm npx yarn pnpm corepack gem bundle composer"
    b" luarocks brew cpan".split()
)
BUILD_TOOLS = frozenset(
    b"cc gcc g++ c++ cpp clang clang++ tcc ld ld.bfd ld.gold ld.lld lld as ar make gmake cmake ninja meson autoconf"
    b" automake libtool go gofmt rustc cargo javac mvn gradle ghc git hg svn gdb lldb strace ltrace perf".split()
)
NETWORK_TOOLS = frozenset(
    b"curl wget nc ncat nc.openbsd nc.traditional netcat socat ssh scp sftp telnet ftp lftp nmap tcpdump rsync".split()
)
PRIVILEGE_TOOLS = frozenset(b"su sudo sudoedit doas pkexec runuser setpriv chroot gosu su-exec".split())
_INTERPRETER = re.compile(
    rb"python(?:\d(?:\.\d+)?)?t?|perl(?:5[\d.]*)?|pypy\d?(?:\.\d+)?|ruby(?:\d[\d.]*)?|node|nodejs|bun|deno|php(?:\d[\d.]*)?"
    rb"|lua(?:\d[\d.]*)?|luajit|tclsh(?:\d[\d.]*)?|guile(?:-[\d.]+)?|java|Rscript|[gmn]?awk|original-awk|erl|elixir"
)
_VERSIONED_TOOL = re.compile(
    rb"(?:[a-z0-9_]+-[a-z0-9_]+-[a-z0-9_]+(?:-[a-z0-9_]+)?-)?(gcc|g\+\+|cpp|clang|clang\+\+|ld|as|ar|pip|ld\.bfd|ld\.gold)"
    rb"(?:-?\d+(?:\.\d+)*)?"
)

_GROUPS = (
    ("shell", SHELLS, "a shell"),
    ("package-manager", PACKAGE_MANAGERS, "a package manager"),
    ("build-tool", BUILD_TOOLS, "a build tool"),
    ("network-tool", NETWORK_TOOLS, "a tool for downloads and connections"),
    ("privilege-tool", PRIVILEGE_TOOLS, "a tool that changes users"),
)


def classify(name: bytes) -> tuple[str, str] | None:
    """Return the rule that a program of that name breaks, and what it is; None for others."""
    for rule, names, what in _GROUPS:
        if name in names:
            return rule, what
    if _INTERPRETER.fullmatch(name):
        return "interpreter", "an interpreter"
    match = _VERSIONED_TOOL.fullmatch(name)
    if match:
        return ("package-manager", "a package manager") if match[1] == b"pip" else ("build-tool", "a build tool")
    return None
