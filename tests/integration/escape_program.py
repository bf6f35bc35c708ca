"""Tries to get out of the sandbox that it runs in, by each way that is known, and prints what came of it as JSON.

A program of its own: it knows nothing of castoff and imports nothing but the standard library. Each attempt returns ""
where it was held, or what it got. Arguments: a path of the host that must not be reachable, and numbers of processes
outside, which must not be either.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable

MACHINE = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
NUMBERS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "seccomp": (317, 277),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
NAMESPACES = {
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "time": 0x80,
}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
HELD = (errno.EPERM, errno.EACCES, errno.ENOSYS)


def call(name: str, *arguments: int | bytes | None) -> tuple[int, int]:
    """Return the result and the errno of a system call."""
    values = [ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_long(value or 0) for value in arguments]
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(NUMBERS[name][MACHINE]), *values)
    return result, ctypes.get_errno()


def is_refused(name: str, *arguments: int | bytes | None) -> str:
    """Make a call that the policy must refuse before the kernel looks at its arguments."""
    result, code = call(name, *arguments)
    return "" if result < 0 and code in HELD else f"{name} gave {result}, {os.strerror(code)}"


def refused_calls() -> str:
    held = [
        is_refused("mount", b"none", b"/", b"tmpfs", 0, None),
        is_refused("umount2", b"/proc/kcore", 2),
        is_refused("pivot_root", b"/", b"/"),
        is_refused("open_tree", -100, b"/", 1),
        is_refused("fsopen", b"proc", 0),
        is_refused("fspick", -100, b"/", 0),
        is_refused("fsconfig", 0, 6, None, None, 0),
        is_refused("fsmount", 0, 0, 0),
        is_refused("move_mount", -100, b"/", -100, b"/", 0),
        is_refused("mount_setattr", -100, b"/proc/sys", 0, None, 0),
        is_refused("keyctl", 0, -1, 1),
        is_refused("add_key", b"user", b"x", b"x", 1, -3),
        is_refused("request_key", b"user", b"x", None, -3),
        is_refused("bpf", 0, None, 0),
        is_refused("perf_event_open", None, 0, -1, -1, 0),
        is_refused("userfaultfd", 1),
        is_refused("io_uring_setup", 1, None),
        is_refused("io_uring_enter", 0, 0, 0, 0, None, 0),
        is_refused("io_uring_register", 0, 0, None, 0),
        is_refused("kcmp", 1, 1, 0, 0, 0),
        is_refused("pidfd_getfd", 0, 0, 0),
        is_refused("init_module", None, 0, b""),
        is_refused("finit_module", 0, b"", 0),
        is_refused("delete_module", b"x", 0),
        is_refused("kexec_load", 0, 0, None, 0),
        is_refused("kexec_file_load", 0, 0, 0, None, 0),
        is_refused("reboot", 0, 0, 0, None),
        is_refused("swapon", b"/x", 0),
        is_refused("syslog", 3, None, 0),
        is_refused("acct", b"/x"),
        is_refused("quotactl", 0, None, 0, None),
        is_refused("settimeofday", None, None),
        is_refused("clock_settime", 0, None),
        is_refused("sethostname", b"x", 1),
        is_refused("setdomainname", b"x", 1),
        is_refused("fanotify_init", 0, 0),
        is_refused("open_by_handle_at", 0, None, 0),
        is_refused("clone3", None, 0),
    ]
    return "; ".join(filter(None, held))


def new_namespaces() -> str:
    got = [name for name, flag in NAMESPACES.items() if is_refused("unshare", flag)]
    for name, flag in NAMESPACES.items():
        if name != "time":  # clone(2) has another flag at its place
            result, code = call("clone", flag | signal.SIGCHLD, None, None, None, None)
            if result == 0:
                os._exit(0)
            if result > 0:
                os.waitpid(result, 0)
                got.append(f"clone {name}")
            elif code != errno.EPERM:
                got.append(f"clone {name}: {os.strerror(code)}")
    return ", ".join(got)


def joined_namespaces() -> str:
    got = []
    for name in os.listdir("/proc/self/ns"):
        for pid in ("self", "1"):
            try:
                descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
            except OSError:
                continue
            if is_refused("setns", descriptor, 0):
                got.append(name)
            os.close(descriptor)
    return ", ".join(got)


def inherited_descriptors() -> str:
    own = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = {int(name) for name in os.listdir(own)} - {0, 1, 2, own}
        # listdir has one of its own open while it reads.
        return ", ".join(_link(f"/proc/self/fd/{number}") for number in found if _link(f"/proc/self/fd/{number}"))
    finally:
        os.close(own)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def magic_links() -> str:
    """Look for the host by the roots, working directories and open files of all processes that can be seen."""
    tried = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        tried += [f"/proc/{pid}/{link}" for link in ("root", "cwd")]
        tried += [f"/proc/{pid}/fd/{number}" + "/.." * 8 for number in range(32)]
    tried += ["/.." * 32, "/proc/self/cwd" + "/.." * 32, "/dev" + "/.." * 32]
    return ", ".join(path for path in tried if os.path.exists(path + sys.argv[1]))


def changed_root() -> str:
    """Leave the root in the way that chroot(2) allows to those who may call it."""
    try:
        os.mkdir("/tmp/inner")
        here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        child = os.fork()
        if child == 0:
            code = 0
            try:
                os.chroot("/tmp/inner")
                os.fchdir(here)
                for _ in range(64):
                    os.chdir("..")
                os.chroot(".")
                code = int(os.path.exists(sys.argv[1]))
            finally:
                os._exit(code)
        return "the host's root" if os.waitpid(child, 0)[1] else ""
    except OSError:
        return ""


def kernel_settings() -> str:
    """Open for writing what would change the kernel; nothing is written, should that succeed."""
    got = []
    for path in (
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/panic",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/kernel/mm/ksm/run",
        "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/cgroup.procs",
    ):
        try:
            os.close(os.open(path, os.O_WRONLY))
            got.append(path)
        except OSError:
            continue
    return ", ".join(got)


def kernel_secrets() -> str:
    got = []
    for path in (
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/kmsg",
        "/proc/kpagecount",
    ):
        try:
            with open(path, "rb", buffering=0) as file:
                if file.read(16):
                    got.append(path)
        except OSError:
            continue
    got += [f"/sys/firmware/{name}" for name in os.listdir("/sys/firmware")] if os.path.isdir("/sys/firmware") else []
    return ", ".join(got)


def devices() -> str:
    got = []
    allowed = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
    for folder, _, names in os.walk("/dev"):
        for name in names:
            mode = os.lstat(os.path.join(folder, name)).st_mode
            if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and name not in allowed and not folder.endswith("/pts")):
                got.append(os.path.join(folder, name))
    for place in ("/disk", "/dev/disk", "/dev/shm/disk", "/tmp/disk"):
        for kind, device in ((stat.S_IFBLK, os.makedev(8, 0)), (stat.S_IFCHR, os.makedev(1, 1))):
            try:
                os.mknod(place, kind | 0o666, device)
            except OSError:
                continue
            try:
                os.close(os.open(place, os.O_RDONLY))
                if stat.S_ISBLK(os.stat(place).st_mode) or stat.S_ISCHR(os.stat(place).st_mode):
                    got.append(f"opened {place}")
            except OSError:
                pass
            os.unlink(place)
    return ", ".join(got)


def device_modes() -> str:
    """Set owners and modes of the devices, which are mounts of the host's, to what they are."""
    got = []
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        path = f"/dev/{name}"
        status = os.stat(path)
        for change, arguments in ((os.chmod, (0o666,)), (os.chown, (status.st_uid, status.st_gid))):
            try:
                change(path, *arguments)
                got.append(name)
            except OSError:
                continue
    return ", ".join(got)


def other_processes() -> str:
    got = []
    for text in sys.argv[2:]:
        pid = int(text)
        for attempt in (os.kill, os.pidfd_open):
            try:
                attempt(pid, 0)
                got.append(f"{pid} answers")
            except OSError:
                continue
        if call("ptrace", 0x4206, pid, None, None)[0] == 0:  # PTRACE_SEIZE: it goes on
            got.append(f"traced {pid}")
        got += [f"/proc/{pid}/{name}" for name in ("environ", "mem", "maps") if _reads(f"/proc/{pid}/{name}")]
        got += [f"{name} of {pid}" for name in ("exe", "cwd", "root") if _link(f"/proc/{pid}/{name}")]
    return ", ".join(got)


def _reads(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return bool(file.read(16))
    except OSError:
        return False


def own_listener() -> str:
    """Put a filter with a listener of one's own on top, and see whether it lets through what the policy refuses."""
    call("seccomp", 0, 0, None)
    LIBC.prctl(38, 1, 0, 0, 0)
    number = NUMBERS["unshare"][MACHINE]
    program = struct.pack("=HBBI", 0x20, 0, 0, 0) + struct.pack("=HBBI", 0x15, 0, 1, number)
    program += struct.pack("=HBBI", 0x06, 0, 0, 0x7FC00000) + struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)), 16)
    child = os.fork()
    if child == 0:
        LIBC.syscall(ctypes.c_long(NUMBERS["seccomp"][MACHINE]), 1, 8, ctypes.byref(header))
        os._exit(1 if is_refused("unshare", NAMESPACES["uts"]) else 0)
    _, status = os.waitpid(child, 0)
    return "the policy was overruled" if status else ""


def sockets() -> str:
    got = []
    for name, family in (("AF_ALG", 38), ("AF_VSOCK", 40)):
        try:
            socket.socket(family, socket.SOCK_SEQPACKET if name == "AF_ALG" else socket.SOCK_STREAM).close()
            got.append(name)
        except OSError:
            continue
    return ", ".join(got)


def abstract_sockets() -> str:
    """Reach the host's abstract sockets; those of a network of one's own are others."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        names = [line.split()[7] for line in file if len(line.split()) > 7]
    return ", ".join(name for name in names if name.startswith("@"))


def capabilities() -> str:
    with open("/proc/self/status", encoding="ascii") as file:
        sets = {line.split(":")[0]: int(line.split()[1], 16) for line in file if line.startswith("Cap")}
    allowed = 0xA80425FB
    more = [name for name, mask in sets.items() if mask & ~allowed]
    ambient = ["CapAmb"] if sets["CapAmb"] or sets["CapInh"] else []
    return ", ".join(more + ambient)


def file_handles() -> str:
    """Open the host's files by their handles, as root of a container once could."""
    handle = ctypes.create_string_buffer(struct.pack("=II", 8, 1) + struct.pack("=Q", 2), 16)
    result, code = call("open_by_handle_at", os.open("/", os.O_RDONLY), None, 0)
    del handle
    return "" if result < 0 and code in HELD else "a handle was opened"


def limits() -> str:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    del soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    except (OSError, ValueError):
        return ""
    return "the limit of open files was raised"


def main() -> None:
    chosen = set(filter(None, os.environ.get("ESCAPE_ONLY", "").split(",")))
    attempts: list[Callable[[], str]] = [
        refused_calls,
        new_namespaces,
        joined_namespaces,
        inherited_descriptors,
        magic_links,
        changed_root,
        kernel_settings,
        kernel_secrets,
        devices,
        device_modes,
        other_processes,
        sockets,
        abstract_sockets,
        capabilities,
        file_handles,
        limits,
        own_listener,
    ]
    os.makedirs("/tmp", exist_ok=True)
    results = {}
    for attempt in attempts:
        if chosen and attempt.__name__ not in chosen:
            continue
        try:
            results[attempt.__name__] = attempt()
        except OSError as error:
            results[attempt.__name__] = f"could not be tried: {error}"
    print(json.dumps(results))


if __name__ == "__main__":
    main()
