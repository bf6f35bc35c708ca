"""What a process in a sandbox sees, may do and leaves behind, with real namespaces, as root and as a user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest
from sandbox_rig import Rig, make_rig, remove_rig

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["root", "subuid"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = make_rig(request.param, request)
    yield made
    remove_rig(made)


def upper_entries(root: dict[str, object]) -> list[str]:
    upper = str(root["upper"])
    found = []
    for folder, folders, files in os.walk(upper):
        found += [os.path.relpath(os.path.join(folder, name), upper) for name in folders + files]
    return sorted(found)


def test_process_is_first_of_its_own(rig: Rig) -> None:
    result = rig.shell("echo $$; ls -d /proc/[0-9]*; hostname; cat /etc/hostname", hostname="box")
    assert result.err == ""
    lines = result.out.split()
    assert lines[0] == "1"
    assert [line for line in lines if line.startswith("/proc/")] == ["/proc/1"]
    assert lines[-2:] == ["box", "box"]


def test_identity_and_mounts(rig: Rig) -> None:
    result = rig.shell("id -u; id -g; cut -d' ' -f2 /proc/mounts; ls /")
    assert result.code == 0, result.err
    words = result.out.split()
    assert words[:2] == ["0", "0"]
    assert {"/", "/proc", "/dev", "/sys", "/dev/shm", "/dev/pts", "/dev/mqueue", "/etc/hosts"} <= set(words)
    # Nothing of the host's root can be reached.
    assert rig.shell(f"ls {rig.folder}").code == 1


def test_environment_is_exactly_what_was_given(rig: Rig) -> None:
    result = rig.run("env", env=["PATH=/bin", "A=1", "B=x y=z", "A=2"])
    assert result.out.split("\n") == ["PATH=/bin", "A=1", "B=x y=z", "A=2", ""]


def test_large_requests_arrive_whole(rig: Rig) -> None:
    value = "v" * 100_000
    result = rig.shell('echo "$BIG$HUGE" | wc -c', env=["PATH=/bin", f"BIG={value}", f"HUGE={value}"])
    assert result.out.strip() == "200001", result.err


def test_exit_codes(rig: Rig) -> None:
    script = rig.layer({"script": "echo no shebang\n", "lost": "#!/no/such\n", "data": "x"})
    for name in ("script", "lost"):
        os.chmod(os.path.join(script, name), 0o755)
    root = rig.root(script)
    steps = [
        rig.step("sh", "-c", "exit 7"),
        rig.step("sh", "-c", "kill -9 $$; sleep 5 & kill -TERM $!; wait $!"),
        rig.step("nope"),
        rig.step("/no/such/program"),
        rig.step("/data", root=rig.root(script)),
        rig.step("/script", root=root),
        rig.step("/lost", root=rig.root(script)),
        rig.step("/bin", root=rig.root(script)),
        rig.step("true", cwd="/missing"),
        rig.step("busybox", env=["PATH=/data:/etc:/bin"]),
    ]
    results = rig.run_all(*steps)
    assert [result.code for result in results] == [7, 143, 127, 127, 126, 126, 127, 126, 126, 0]
    assert results[2].err == 'exec: "nope": executable file not found in $PATH\n'
    assert "format error" in results[5].err
    assert "interpreter" in results[6].err
    assert "working directory" in results[8].err
    assert "/missing" in results[8].err


def test_signals_and_kill(rig: Rig) -> None:
    trap = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    handled = rig.run("sh", "-c", trap, signals=[15])
    assert (handled.code, handled.out) == (9, "ready\ngot\n")
    killed = rig.run("sh", "-c", "echo ready; sleep 100 & sleep 100", signals=[9])
    assert killed.code == 137


def test_default_signal_actions(rig: Rig) -> None:
    result = rig.run("grep", "-E", "SigIgn|SigBlk", "/proc/self/status")
    assert result.out.split()[1::2] == ["0000000000000000", "0000000000000000"]


def test_what_a_step_leaves_running_is_killed(rig: Rig) -> None:
    root = rig.root()
    result = rig.shell(
        "(sleep 0.3; echo late > /late) & setsid sh -c 'sleep 0.3; echo late > /late2' & exit 0", root=root
    )
    assert result.code == 0
    assert "late" not in upper_entries(root)


def test_no_descriptor_is_inherited(rig: Rig) -> None:
    result = rig.shell("ls /proc/1/fd; true")
    assert result.out.split() == ["0", "1", "2"]


def test_user_groups_umask_cwd(rig: Rig) -> None:
    layer = rig.layer({"work/x": "1"})
    identity = {"uid": 1000, "gid": 100, "groups": [7, 8], "umask": 0o27, "cwd": "/work"}
    result = rig.shell("id -u; id -g; id -G; umask; pwd", root=rig.root(layer), **identity)
    assert result.out.split() == ["1000", "100", "100", "7", "8", "0027", "/work"]


def test_limits(rig: Rig) -> None:
    result = rig.shell("ulimit -n; ulimit -c", rlimits=[["nofile", 100, 200], ["core", 0, 0]])
    assert result.out.split() == ["100", "0"]
    refused = rig.shell("true", rlimits=[["nonsense", 1, 1]])
    assert refused.error is not None
    assert "nonsense" in refused.error[1]


def test_capabilities(rig: Rig) -> None:
    root_user = rig.shell("grep Cap /proc/self/status").out.split()
    assert root_user[1::2] == ["0" * 16, "00000000a80425fb", "00000000a80425fb", "00000000a80425fb", "0" * 16]
    other = rig.shell("grep Cap /proc/self/status", uid=1000, gid=1000).out.split()
    assert other[1::2] == ["0" * 16, "0" * 16, "0" * 16, "00000000a80425fb", "0" * 16]


def test_refused_calls(rig: Rig) -> None:
    result = rig.shell("unshare -U true; mount -t tmpfs x /tmp; umount /proc; hostname other; chroot / true && echo ok")
    assert result.err.count("Operation not permitted") >= 3, result.err
    assert result.out.strip() == "ok"
    assert rig.shell("hostname other").code != 0


def test_privileged_has_all(rig: Rig) -> None:
    result = rig.shell(
        "mkdir /m; mount -t tmpfs x /m && echo mounted; grep Seccomp: /proc/self/status", privileged=True
    )
    assert "mounted" in result.out, result.err
    assert result.out.split()[-1] == "0"


def test_masked_and_read_only_proc(rig: Rig) -> None:
    script = (
        "cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l;"
        "echo 1 > /proc/sys/kernel/panic; echo b > /proc/sysrq-trigger; touch /sys/x"
    )
    result = rig.shell(script)
    assert result.out.split() == ["0", "0"], result.err
    assert result.err.count("Read-only file system") >= 2, result.err


def test_set_user_id_programs_work(rig: Rig) -> None:
    layer = rig.layer({})
    with open(os.path.join(rig.base, "bin/busybox"), "rb") as source:
        data = source.read()
    for name in ("suid", "plain"):
        os.makedirs(os.path.join(layer, name), exist_ok=True)
        with open(os.path.join(layer, name, "ping"), "wb") as file:
            file.write(data)
        rig.give(layer)
    os.chmod(os.path.join(layer, "suid/ping"), 0o4755)
    os.chmod(os.path.join(layer, "plain/ping"), 0o755)
    for name, code in (("suid", 0), ("plain", 1)):
        result = rig.run(f"/{name}/ping", "-c1", "127.0.0.1", root=rig.root(layer), uid=1000, gid=1000, network="none")
        assert result.code == code, (result.out, result.err)


def test_devices(rig: Rig) -> None:
    result = rig.shell(
        "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; ls -l /dev/fd/0 | wc -l"
    )
    assert result.out.split() == ["4", "4", "1"], result.err
    script = (
        "for folder in '' /dev /dev/shm /mnt; do mknod $folder/n c 1 3 && mknod $folder/disk b 8 0 && ls -l $folder/n"
        " | cut -c1; cat $folder/n $folder/disk; done"
    )
    made = rig.shell(script, mounts=[{"kind": "tmpfs", "target": "/mnt"}])
    if rig.tier == "root":
        assert made.out.split() == ["c"] * 4
        assert made.err.count("Permission denied") == 8, made.err
    else:
        assert made.err.count("Operation not permitted") == 4


def test_network_none_has_only_loopback(rig: Rig) -> None:
    result = rig.shell("ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1", network="none")
    assert result.out.split() == ["1", "1"], result.err


def test_network_private_allows_low_ports(rig: Rig) -> None:
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; timeout 0.2 nc -l -p 80; echo $?"
    result = rig.shell(script, network="private", uid=1000, gid=1000)
    assert result.out.split()[0] == "0", result.err
    assert "denied" not in result.err


def test_network_host_is_the_hosts(rig: Rig) -> None:
    result = rig.shell("readlink /proc/self/ns/net")
    assert result.out.strip() == os.readlink("/proc/self/ns/net")


def test_hosts_file(rig: Rig) -> None:
    result = rig.shell("cat /etc/hosts; echo x >> /etc/hosts", hosts=[["db.local", "10.1.2.3"]])
    assert "10.1.2.3\tdb.local\n" in result.out
    assert "127.0.0.1\tlocalhost buildkitsandbox\n" in result.out
    assert "Read-only" in result.err


def test_steps_at_once(rig: Rig) -> None:
    steps = [rig.step("sh", "-c", f"sleep 0.2; echo {number}; exit {number}") for number in range(12)]
    results = rig.run_all(*steps, parallel=True)
    assert [(result.code, result.out) for result in results] == [(number, f"{number}\n") for number in range(12)]


def test_files_belong_to_ids_of_the_image(rig: Rig) -> None:
    root = rig.root()
    result = rig.shell("touch /a; chown 33:44 /a; mkdir /d; chown 65534:65534 /d; stat -c '%u:%g' /a /d", root=root)
    assert result.out.split() == ["33:44", "65534:65534"], result.err
    status = os.stat(os.path.join(str(root["upper"]), "a"))
    assert stat.S_ISREG(status.st_mode)
    assert (status.st_uid == 33) == (rig.tier == "root")


def test_memory_limits_of_shm(rig: Rig) -> None:
    result = rig.shell("df -k /dev/shm | tail -1", shm_size=1 << 20)
    assert result.out.split()[1] == "1024", result.out
