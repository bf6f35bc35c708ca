"""Sessions whose files belong to subordinate ids of an ordinary user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Require, RunAsUser

pytestmark = pytest.mark.integration

ABANDON = """
import os, signal, sys
from castoff.store.directory import DirectoryStore
store = DirectoryStore.open_(sys.argv[1])
folder = store.session().new_dir()
os.mkdir(folder + "/theirs")
with open(folder + "/theirs/file", "w") as file:
    file.write("x")
for path in ("/theirs/file", "/theirs"):
    os.chown(folder + path, 5, 5)
os.chmod(folder + "/theirs", 0o700)
os.kill(os.getpid(), signal.SIGKILL)
"""
NEXT = """
import os, sys
from castoff.store.directory import DirectoryStore
with DirectoryStore.open_(sys.argv[1]) as store:
    store.blobs.add(b"usable")
    own = os.path.basename(store.session().path)
    print(len([name for name in os.listdir(store.root + "/tmp") if name[0].isdigit() and not name.startswith(own)]))
"""


def test_files_of_other_ids_go_with_the_next_session_that_may_remove_them(
    run_as_user: RunAsUser, user_dir: str, require: Require
) -> None:
    require.subordinate_ids(run_as_user.user)
    python = run_as_user._command[0]
    namespace = [require.command("unshare", "util-linux"), "--user", "--map-root-user", "--map-auto"]
    if run_as_user([*namespace, "true"]).returncode:
        pytest.skip("unshare can't map subordinate ids (newuidmap, Debian package uidmap)")
    store = os.path.join(user_dir, "store")
    run_as_user([*namespace, python, "-c", ABANDON, store])
    outside = run_as_user([python, "-c", NEXT, store])
    assert outside.stderr == b""
    assert outside.stdout.strip() == b"2"  # the folder and its lock: an ordinary process may not remove the files
    inside = run_as_user([*namespace, python, "-c", NEXT, store])
    assert inside.stderr == b""
    assert inside.stdout.strip() == b"0"
