"""System call filters: a small assembler for seccomp's BPF, and the default policy.

The policy has the effect of Docker's default profile for a process with Docker's default capabilities. Of the calls
that the policy knows (the kernel's, up to number 466) all are allowed but the ones named in `_REFUSED`; younger ones
don't exist for the process (ENOSYS, so that programs fall back to what they did before). Only native calls are
served: those of another architecture of the same machine (i386, x32, 32-bit ARM) give ENOSYS.
"""

from __future__ import annotations

import errno
import struct

_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000
_LD_WORD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_GREATER_EQUAL = 0x35
_JUMP_ANY_BIT = 0x45
_JUMP_ALWAYS = 0x05
_RETURN = 0x06
_OFFSET_NUMBER = 0
_OFFSET_ARCH = 4
_OFFSET_ARGUMENT = 16

_NEWEST = 466  # removexattrat; what came later is unknown to the policy
_GAP = {"x86_64": (336, 424), "aarch64": (295, 424)}  # numbers that no call of the policy has

# (x86-64, aarch64), None where the architecture has no such call. All need a capability that Docker's default set
# lacks, change the kernel as a whole, are outside of namespaces, or are obsolete.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "afs_syscall": (183, None),
    "bpf": (321, 280),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "get_kernel_syms": (177, None),
    "get_mempolicy": (239, 236),
    "getpmsg": (181, None),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "lsm_get_self_attr": (459, 459),
    "lsm_list_modules": (461, 461),
    "lsm_set_self_attr": (460, 460),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "putpmsg": (182, None),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "security": (185, None),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, None),
    "syslog": (103, 116),
    "tuxcall": (184, None),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
    "vserver": (236, None),
}
_REFUSED_ON_REQUEST: dict[str, tuple[int | None, int | None]] = {
    "chroot": (161, 51),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
}
_ABSENT = {"clone3": (435, 435)}
"""Calls that give ENOSYS: their arguments are behind a pointer, where a filter can't see them."""
_CHECKED: dict[str, tuple[int, int]] = {"clone": (56, 220), "personality": (135, 92), "socket": (41, 198)}

_CLONE_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_FAMILIES_REFUSED = (38, 40)  # AF_ALG, AF_VSOCK


def _instruction(code: int, true: int, false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, true, false, operand & 0xFFFFFFFF)


def _return(value: int) -> bytes:
    return _instruction(_RETURN, 0, 0, value)


_ALLOW = _return(_RET_ALLOW)
_REFUSE = _return(_RET_ERRNO | errno.EPERM)
_NO_SUCH_CALL = _return(_RET_ERRNO | errno.ENOSYS)


def _argument_is_one_of(values: tuple[int, ...], then: bytes, otherwise: bytes) -> bytes:
    """Load the first argument (its low 32 bits, as the kernel takes it) and return by its value."""
    code = _instruction(_LD_WORD, 0, 0, _OFFSET_ARGUMENT)
    for index, value in enumerate(values):
        code += _instruction(_JUMP_EQUAL, len(values) - index, 0, value)
    return code + otherwise + then


def _body(name: str) -> bytes:
    if name == "clone":
        return (
            _instruction(_LD_WORD, 0, 0, _OFFSET_ARGUMENT)
            + _instruction(_JUMP_ANY_BIT, 0, 1, _CLONE_NAMESPACES)
            + _REFUSE
            + _ALLOW
        )
    if name == "personality":
        return _argument_is_one_of(_PERSONALITIES, _ALLOW, _REFUSE)
    return _argument_is_one_of(_FAMILIES_REFUSED, _REFUSE, _ALLOW)


def _ranges(column: int, gap: tuple[int, int], further: tuple[str, ...]) -> list[tuple[int, bytes]]:
    """Return (first number, code) for each run of numbers that are treated alike, ascending."""
    special: dict[int, bytes] = {}
    for refused in (*_REFUSED.values(), *(_REFUSED_ON_REQUEST[name] for name in further)):
        number = refused[column]
        if number is not None:
            special[number] = _REFUSE
    for absent in _ABSENT.values():
        special[absent[column]] = _NO_SUCH_CALL
    for name, checked in _CHECKED.items():
        special[checked[column]] = _body(name)
    ranges: list[tuple[int, bytes]] = []
    for number in range(_NEWEST + 2):
        code = special.get(number, _ALLOW)
        if gap[0] <= number < gap[1]:
            code = _REFUSE
        if number > _NEWEST:
            code = _NO_SUCH_CALL
        if not ranges or ranges[-1][1] != code:
            ranges.append((number, code))
    return ranges


def _search(ranges: list[tuple[int, bytes]]) -> bytes:
    """Return code that finds the range of the loaded number by halving."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    distance = len(low) // 8
    if distance < 256:
        return _instruction(_JUMP_GREATER_EQUAL, distance, 0, ranges[middle][0]) + low + high
    # A conditional jump reaches 255 instructions; farther goes by way of an unconditional one.
    return (
        _instruction(_JUMP_GREATER_EQUAL, 0, 1, ranges[middle][0])
        + _instruction(_JUMP_ALWAYS, 0, 0, distance)
        + low
        + high
    )


def default_policy(machine: str, further: tuple[str, ...] = ()) -> bytes:
    """Return the default policy as a BPF program for `seccomp_set_filter`.

    Args:
        machine: the architecture as the kernel names it: ``x86_64`` or ``aarch64``.
        further: names of calls that are refused too: chroot, process_vm_readv, process_vm_writev, ptrace.

    Raises:
        ValueError: there is no policy for that architecture.
    """
    if machine not in _ARCHES:
        raise ValueError(f"there is no system call policy for {machine}")
    column = list(_ARCHES).index(machine)
    head = (
        _instruction(_LD_WORD, 0, 0, _OFFSET_ARCH)
        + _instruction(_JUMP_EQUAL, 1, 0, _ARCHES[machine])
        + _NO_SUCH_CALL
        + _instruction(_LD_WORD, 0, 0, _OFFSET_NUMBER)
        # x32 calls carry this bit; they are compared as unsigned numbers beyond the newest and so give ENOSYS.
        + _instruction(_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT)
        + _NO_SUCH_CALL
    )
    return head + _search(_ranges(column, _GAP[machine], further))
