"""What a runtime never needs, by name; and what C code imports without anyone seeing it. What is loaded stays."""

from __future__ import annotations

import fnmatch
import re

STDLIB_DROPPED = frozenset(
    "test idlelib tkinter turtledemo turtle ensurepip lib2to3 distutils venv pydoc_data __phello__ this antigravity "
    "_tkinter _testcapi _testbuffer _testinternalcapi _testclinic _testclinic_limited _testlimitedcapi "
    "_testmultiphase _testsinglephase _testimportmultiple _testexternalinspection _xxtestfuzz _ctypes_test "
    "xxlimited xxlimited_35 _xxsubinterpreters xxsubtype ossaudiodev nis msilib _aix_support _osx_support "
    "_ios_support _android_support _apple_support _bootsubprocess curses _curses _curses_panel readline "
    "rlcompleter _pyrepl _dbm _gdbm nturl2path winreg _msi asyncio.windows_events asyncio.windows_utils "
    "ctypes.macholib ctypes.test sqlite3.test unittest.test json.tests multiprocessing.popen_spawn_win32 "
    "encodings.mbcs encodings.oem pydoc pickletools".split()
)
"""Modules of the standard library, with all in them, that only stay where something imports them."""

NEVER_COMPILED = frozenset("test idlelib lib2to3 tkinter turtledemo".split())
"""Large parts of what is dropped: whoever loads them all the same gets their sources."""

FALLBACKS = {"_pydecimal": "_decimal", "_pyio": "_io", "_pydatetime": "_datetime"}
"""Modules that are only imported where another one, in machine code, is not there."""

DEVELOPMENT = STDLIB_DROPPED | frozenset(
    "pdb doctest unittest pydoc webbrowser cProfile profile pstats code codeop wsgiref xmlrpc multiprocessing "
    "tracemalloc cmd bdb ftplib".split()
)
"""Modules that the closure of imports does not enter unless they are loaded."""

C_IMPORTS = frozenset(
    "time struct io functools builtins collections.abc _strptime zoneinfo._tzpath zoneinfo._common zipimport weakref "
    "warnings re pickle numbers json importlib encodings copyreg copy collections codecs asyncio ast _compat_pickle "
    "traceback linecache site runpy os stat posixpath abc genericpath _sitebuiltins _collections_abc importlib.util "
    "importlib.machinery importlib.abc threading concurrent.futures.thread stringprep unicodedata encodings.idna "
    "encodings.punycode encodings.ascii encodings.latin_1 encodings.utf_8 encodings.utf_8_sig encodings.cp437 "
    "encodings.utf_16 encodings.utf_32 encodings.utf_16_le encodings.utf_16_be encodings.iso8859_1 encodings.cp1252 "
    "encodings.unicode_escape encodings.raw_unicode_escape encodings.charmap encodings.hex_codec "
    "encodings.base64_codec encodings.aliases".split()
)
"""Modules that the interpreter's and its extensions' C code imports by name."""

STARTUP = frozenset(
    "os site runpy encodings encodings.aliases encodings.utf_8 encodings.ascii encodings.latin_1 codecs io abc stat "
    "posixpath genericpath _collections_abc _sitebuiltins importlib.util importlib.machinery importlib._abc "
    "importlib linecache traceback".split()
)
"""Modules without which no interpreter starts, or no trace of an error is printed."""

_DEPENDENCY_DROPPED = (
    ("tests", ("*/tests/*", "*/test/*", "*/conftest.py", "*/_examples/*")),
    ("type stubs", ("*.pyi", "*/py.typed")),
    ("sources and headers of C", ("*.h", "*.hpp", "*.c", "*.cc", "*.cpp", "*.pyx", "*.pxd", "*/include/*")),
    ("static libraries", ("*.a", "*.la", "*.o", "*.pc", "*.cmake")),
    ("documentation", ("*/docs/*.md", "*/docs/*.rst", "*/share/man/*", "*/share/doc/*")),
)
_METADATA_KEPT = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "PKG-INFO")
_LICENSES = re.compile(r"(?:licen[cs]e|notice|copying|authors)", re.IGNORECASE)


def dependency_dropped(path: str, folder: str) -> str:
    """Return why a dependency's file is of no use at run time, or "" where it may be.

    Args:
        path: of the file.
        folder: that the dependency is installed in.
    """
    inside = path.startswith(folder + "/")
    below = path[len(folder) :] if inside else path
    first, _, rest = below.strip("/").partition("/")
    if inside and first.endswith(".dist-info"):
        if rest in _METADATA_KEPT or _LICENSES.search(rest):
            return ""
        return "notes of the installer"
    if inside and first == "bin":
        return "commands that the launcher stands in for"
    if not inside and "/bin/" in path:
        return "commands that the launcher stands in for"
    for what, patterns in _DEPENDENCY_DROPPED:
        if any(fnmatch.fnmatchcase(below, pattern) for pattern in patterns):
            return what
    return ""
