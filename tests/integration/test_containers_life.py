"""Containers that live: started in the background, looked at, entered, stopped, started again, removed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers_rig import Lives, eventually, make_lives, processes_of

pytestmark = pytest.mark.integration

READY = "trap 'exit 3' TERM; echo ready; echo oops >&2; while :; do sleep 0.05; done"
FOREVER = "while :; do sleep 0.05; done"


@pytest.fixture(scope="module", params=["root", "user"])
def lives(request: pytest.FixtureRequest) -> Iterator[Lives]:
    yield from make_lives(request.param, request)


@pytest.fixture(autouse=True)
def nothing_stays(lives: Lives) -> Iterator[None]:
    yield
    lives.clear()
    assert os.listdir(os.path.join(lives.store, "containers")) == ["names.lock"]
    assert [name for name in os.listdir(os.path.join(lives.store, "tmp")) if not name.startswith("unsynced-")] == []
    eventually(lambda: not processes_of(lives.store), "the end of all processes")


def test_life_of_a_container(lives: Lives) -> None:
    container_id = lives.run("web", "--label", "a=b", "busybox", "sh", "-c", READY)
    assert len(container_id) == 64
    assert lives.good("ps", "-q") == container_id[:12]
    assert lives.good("ps", "-q", "--filter", "label=a=b", "--no-trunc") == container_id
    assert "Up " in lives.good("ps")
    eventually(lambda: lives("logs", "web").out == "ready\n", "the log")
    assert lives("logs", container_id[:6]).err == "oops\n"
    assert lives.good("stop", "web") == "web"
    assert lives.good("ps", "-q") == ""
    assert "Exited (3)" in lives.good("ps", "-a")
    assert lives.good("wait", "web") == "3"
    assert lives.good("stop", "web") == "web"
    state = lives.state("web")
    assert (state["Status"], state["ExitCode"], state["Pid"], state["Error"]) == ("exited", 3, 0, "")
    assert lives.good("rm", "web") == "web"
    missing = lives("logs", "web")
    assert missing.code == 1
    assert "there is no container web" in missing.err


def test_files_stay_until_the_container_is_removed(lives: Lives) -> None:
    lives.run("kept", "busybox", "sh", "-c", "cat /file; echo more >> /file; chown 77:78 /file")
    lives.good("wait", "kept")
    lives.good("start", "-a", "kept")
    assert lives.good("start", "-a", "kept") == "more\nmore"
    assert lives.good("logs", "kept").splitlines() == ["more", "more", "more"]


def test_exec(lives: Lives) -> None:
    lives.run("home", "-e", "A=1", "-w", "/tmp", "-u", "app", "busybox", "sh", "-c", FOREVER)
    done = lives("exec", "-e", "B=2", "home", "sh", "-c", "echo $A $B $PWD $(id -u):$(id -g); echo err >&2; exit 9")
    assert (done.code, done.out, done.err) == (9, "1 2 /tmp 1234:1235\n", "err\n")
    assert lives.good("exec", "-i", "home", "cat", stdin=b"x" * 300_000) == "x" * 300_000
    assert (
        lives.good("exec", "-u", "root", "-w", "/bin", "home", "sh", "-c", "id -u; pwd; echo $HOME") == "0\n/bin\n/root"
    )
    assert lives.good("exec", "-u", "4:5", "home", "sh", "-c", "id -u; id -g") == "4\n5"
    assert lives("exec", "home", "nothing").code == 127
    assert lives("exec", "-u", "nobody-here", "home", "id").code == 126
    assert lives("exec", "-w", "/nowhere", "home", "id").code == 126
    assert lives("exec", "gone", "id").code == 125
    lives.good("exec", "-d", "home", "sh", "-c", "echo $$ > /tmp/pid; exec sleep 1000")
    eventually(lambda: "sleep 1000" in lives.good("exec", "home", "ps"), "the process in the background")


def test_exec_has_the_confinement_of_the_container(lives: Lives) -> None:
    lives.run("tight", "--ulimit", "nofile=99", "busybox", "sh", "-c", FOREVER)
    ask = "grep -E '^(Cap|Seccomp)' /proc/self/status; ulimit -n; hostname; ls -l /proc/self/fd | wc -l; ls /"
    first = lives.good(
        "run", "--rm", "--network", "none", "-h", "same", "--ulimit", "nofile=99", "busybox", "sh", "-c", ask
    )
    inside = lives.good("exec", "tight", "sh", "-c", ask)
    assert inside.replace(lives.inspect("tight")["Config"]["Hostname"], "same") == first
    for kind in ("pid", "mnt", "ipc", "uts", "net"):
        link = f"readlink /proc/self/ns/{kind}; readlink /proc/1/ns/{kind}"
        assert len(set(lives.good("exec", "tight", "sh", "-c", link).split())) == 1
    refused = lives("exec", "tight", "sh", "-c", "mount -t tmpfs x /tmp; cat /proc/1/mem; echo x > /proc/sysrq-trigger")
    assert refused.code != 0
    # The container's root may not take hold of the program that lets processes in, which is the host's.
    look = "for p in /proc/[0-9]*; do readlink $p/exe; done | grep -v busybox"
    assert lives("exec", "tight", "sh", "-c", look).out == ""


def test_signals(lives: Lives) -> None:
    lives.run(
        "stubborn", "busybox", "sh", "-c", "trap 'echo got' USR1; trap '' TERM; echo on; while :; do sleep 0.05; done"
    )
    eventually(lambda: "on" in lives("logs", "stubborn").out, "the traps")
    lives.good("kill", "-s", "USR1", "stubborn")
    eventually(lambda: "got" in lives("logs", "stubborn").out, "the signal")
    lives.good("stop", "-t", "0", "stubborn")
    assert lives.state("stubborn")["ExitCode"] == 137
    lives.run(
        "quick",
        "--stop-signal",
        "USR2",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 5' USR2; echo on; while :; do sleep 0.05; done",
    )
    eventually(lambda: "on" in lives("logs", "quick").out, "the trap")
    lives.good("stop", "quick")
    assert lives.state("quick")["ExitCode"] == 5
    assert lives("kill", "quick").code == 1


def test_names_are_unique_and_a_failed_start_leaves_nothing(lives: Lives) -> None:
    lives.run("only", "busybox", "sh", "-c", FOREVER)
    again = lives("run", "-d", "--network", "none", "--name", "only", "busybox", "true")
    assert again.code == 125
    assert "the name only is taken" in again.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = lives("run", "-d", "--name", "port", "-p", f"127.0.0.1:{port}:80", "busybox", "true")
    assert refused.code == 125
    assert "is already in use" in refused.err
    assert lives("run", "-d", "--name", "bad/name", "busybox", "true").code == 125
    assert lives.names() == ["only"]
    lost = lives("run", "-d", "--network", "none", "--name", "lost", "busybox", "not-there")
    assert lost.code == 127
    assert "not found" in lost.err
    assert lives.state("lost")["ExitCode"] == 127
    running = lives("rm", "only")
    assert running.code == 1
    assert "castoff rm -f" in running.err


def test_rm_when_it_ends(lives: Lives) -> None:
    lives.run("short", "--rm", "busybox", "sh", "-c", FOREVER)
    lives.run("other", "--rm", "busybox", "sh", "-c", FOREVER)
    stopped = lives("stop", "-t", "0", "short", "gone", "other")
    assert (stopped.code, stopped.out) == (1, "short\nother\n")
    assert "there is no container gone" in stopped.err
    assert lives.names() == []
    for _ in range(3):
        assert lives("run", "--rm", "--network", "none", "--name", "short", "busybox", "sh", "-c", "exit 6").code == 6
    assert lives.names() == []


def test_attached_streams(lives: Lives) -> None:
    data = os.urandom(200_000).hex().encode()
    script = "cat; echo end >&2; exit 8"
    process = lives.start(
        *("run", "--network", "none", "--name", "pipe", "-i", "busybox", "sh", "-c", script), stdin=subprocess.PIPE
    )
    out, err = process.communicate(data)
    assert (process.returncode, out, err) == (8, data, b"end\n")
    assert lives("logs", "pipe").out.encode() == data
    process = lives.start("run", "--network", "none", "--name", "sig", "busybox", "sh", "-c", READY)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 3


def test_follow(lives: Lives) -> None:
    lives.run("slow", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done")
    assert lives.good("logs", "-f", "slow").split("\n") == [f"line {number}" for number in range(1, 6)]
    assert lives.good("logs", "--tail", "2", "slow") == "line 4\nline 5"
    assert lives.good("logs", "--since", "2099-01-01T00:00:00Z", "slow") == ""
    assert lives.good("logs", "--since", "1h", "--tail", "1", "slow") == "line 5"
    assert lives.good("logs", "-t", "--tail", "1", "slow")[4] == "-"


def test_castoff_may_be_killed_and_the_container_lives(lives: Lives) -> None:
    process = lives.start("run", "--network", "none", "--name", "alone", "busybox", "sh", "-c", READY)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate()
    assert lives.state("alone")["Running"]
    assert lives.good("exec", "alone", "echo", "still") == "still"


def kill_monitor(container_id: str) -> None:
    """Kill the monitor of a container, and wait for the end of what it had started."""
    for pid in processes_of(container_id):
        with contextlib.suppress(OSError):
            if b"monitor.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    eventually(lambda: not processes_of(container_id), "the end of the container")


def test_killed_monitor_is_recognised_and_leaves_no_process(lives: Lives) -> None:
    container_id = lives.run("poor", "--restart", "always", "busybox", "sh", "-c", "echo run; " + FOREVER)
    kill_monitor(container_id)
    state = lives.state("poor")
    assert (state["Status"], state["ExitCode"]) == ("exited", 255)
    assert "monitor" in state["Error"]
    assert lives("exec", "poor", "true").code == 125
    lives.good("start", "poor")
    assert lives.state("poor")["Running"]
    eventually(lambda: lives("logs", "poor").out == "run\nrun\n", "the second run")


def test_restart_policy(lives: Lives) -> None:
    lives.run("again", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo try; exit 4")
    assert lives.good("wait", "again") == "4"
    assert lives.good("logs", "again").split() == ["try"] * 3
    assert lives.inspect("again")["RestartCount"] == 2
    lives.run("always", "--restart", "always", "busybox", "sh", "-c", "echo try; sleep 0.01")
    eventually(lambda: lives.inspect("always")["RestartCount"] > 1, "a second restart")
    lives.good("stop", "-t", "1", "always")
    assert lives.state("always")["Status"] == "exited"


def test_health(lives: Lives) -> None:
    often = ["--health-interval", "50ms", "--health-retries", "2", "--health-timeout", "5s"]
    lives.run("well", "--health-cmd", "cat /tmp/ok", *often, "busybox", "sh", "-c", FOREVER)
    eventually(lambda: lives.state("well")["Health"]["Status"] == "unhealthy", "unhealthy")
    assert "(unhealthy)" in lives.good("ps")
    assert "No such file" in lives.state("well")["Health"]["Output"]
    assert lives.state("well")["Health"]["FailingStreak"] >= 2
    lives.good("exec", "well", "touch", "/tmp/ok")
    eventually(lambda: lives.state("well")["Health"]["Status"] == "healthy", "healthy")
    lives.run(
        "late",
        "--health-cmd",
        "sleep 100",
        "--health-interval",
        "20ms",
        "--health-timeout",
        "50ms",
        "--health-retries",
        "1",
        "busybox",
        "sh",
        "-c",
        FOREVER,
    )
    eventually(lambda: lives.state("late")["Health"]["Status"] == "unhealthy", "the time limit")
    assert "timeout" in lives.state("late")["Health"]["Output"]
    lives.run("plain", "--no-healthcheck", "busybox", "sh", "-c", FOREVER)
    assert "Health" not in lives.state("plain")


def test_published_port_lives_on(lives: Lives, free_port: Callable[[], int]) -> None:
    port = free_port()
    started = lives(
        "run", "-d", "--name", "echo", "-p", f"127.0.0.1:{port}:80", "busybox", "nc", "-ll", "-p", "80", "-e", "cat"
    )
    assert started.code == 0, started.err
    assert lives.good("port", "echo") == f"80/tcp -> 127.0.0.1:{port}"
    assert lives.good("port", "echo", "80") == f"127.0.0.1:{port}"
    assert f"127.0.0.1:{port}->80/tcp" in lives.good("ps")

    def answers() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(b"ping\n")
                return client.recv(10) == b"ping\n"
        except OSError:
            return False

    eventually(answers, "an answer")
    lives.good("rm", "-f", "echo")
    eventually(lambda: not answers(), "the end of the port")


def test_volumes(lives: Lives) -> None:
    write = ["busybox", "sh", "-c", "id -u > /data/$(hostname); ls /data"]
    assert lives.good("run", "--network", "none", "-h", "one", "-v", "box:/data", *write) == "one"
    assert lives.good("run", "--network", "none", "-h", "two", "-v", "box:/data", *write).split() == ["one", "two"]
    lives.run("user", "-v", "box:/data:ro", "busybox", "sh", "-c", FOREVER)
    assert lives("exec", "user", "touch", "/data/x").code == 1
    assert lives.good("volume", "ls", "-q") == "box"
    assert "user" in lives.good("volume", "ls")
    used = lives("volume", "rm", "box")
    assert used.code == 1
    assert "is used by user" in used.err
    lives.good("rm", "-f", "user")
    assert lives.good("volume", "rm", "box") == "box"
    assert lives.good("volume", "ls", "-q") == ""
    # A new named volume is filled with what the image has there, owners included.
    assert lives.good("run", "--network", "none", "-v", "etc:/etc", "busybox", "cat", "/etc/group").startswith("root:")
    lives.good("volume", "rm", "etc")


def test_read_only_with_tmpfs_and_env_file(lives: Lives) -> None:
    with open(os.path.join(lives.folder, "env"), "w", encoding="ascii") as file:
        file.write("# comment\nFROM_FILE=yes\n")
    options = ["--read-only", "--tmpfs", "/scratch:size=1m", "--env-file", "env"]
    lives.run("ro", *options, "busybox", "sh", "-c", FOREVER)
    assert lives.good("exec", "ro", "sh", "-c", "touch /scratch/x && echo $FROM_FILE") == "yes"
    assert lives("exec", "ro", "touch", "/x").code == 1
    assert lives.inspect("ro")["HostConfig"]["ReadonlyRootfs"] is True


def groups_of(ids: list[str]) -> list[str]:
    """Return the control groups of containers."""
    names = [word for identity in ids for word in ("-o", "-name", f"castoff-{identity[:12]}*")]
    found = subprocess.run(["find", "/sys/fs/cgroup", *names[1:]], stdout=subprocess.PIPE, text=True, check=False)
    return found.stdout.splitlines()


def test_limits_hold_or_are_refused(lives: Lives) -> None:
    limits = ["--memory", "32m", "--pids-limit", "12", "--cpus", "0.5"]
    started = lives("run", "-d", "--network", "none", "--name", "small", *limits, "busybox", "sh", "-c", FOREVER)
    if started.code:
        assert started.code == 125
        assert "can't be set on this machine" in started.err
        assert "hint: " in started.err
        assert lives.names() == []
        return
    ids = [lives.inspect("small")["Id"]]
    assert groups_of(ids), "what is looked for afterwards has another name"
    forks = lives("exec", "small", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait")
    assert "can't fork" in forks.err
    lives("exec", "small", "sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
    lives.good("rm", "-f", "small")
    big = lives(
        "run",
        "--network",
        "none",
        "--name",
        "big",
        "-m",
        "24m",
        "busybox",
        "sh",
        "-c",
        "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done",
    )
    assert big.code == 137
    assert lives.state("big")["OOMKilled"] is True
    lives.good("start", "big")
    ids.append(lives.inspect("big")["Id"])
    kill_monitor(ids[-1])
    lives.good("rm", "-f", "big")
    assert groups_of(ids) == []
