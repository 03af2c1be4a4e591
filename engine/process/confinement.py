"""Takes from a process what it has no need of: the network, and files.

Linux: seccomp(2) refuses sockets, Landlock (landlock(7)) refuses files, TCP and signals to others. What a kernel lacks
is left out; `probe` says what holds. Only the standard library: the template's process loads this file by its path.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""AUDIT_ARCH and the number of socket(2)."""
_IO_URING_SETUP = 425
_ARCH_PRCTL, _REQUEST_PERMISSION = 158, 0x1023
_SECCOMP, _SECCOMP_SET_FILTER, _ALL_THREADS = 317, 1, 1
"""On x86-64."""
_X32 = 0x40000000
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""Rights that each version of Landlock added: from executing and reading to making and removing; then renaming,
truncating, ioctl on devices."""
_TCP, _SCOPES = 0b11, 0b11
"""bind and connect (version 4); abstract sockets and signals to processes outside (version 6)."""


def without_network(local: bool) -> bool:
    """Refuse sockets but, where `local`, those between processes of this machine; whether that is possible.

    Call it before there are other threads. It holds for all children, and cannot be taken back.
    """
    known = _MACHINES.get(platform.machine())
    if known is None or not _no_new_privileges():
        return False
    arch, number = known
    load, equal, at_least, back = 0x20, 0x15, 0x35, 0x06  # BPF_LD_W_ABS, JEQ, JGE, RET
    family = [(equal, 1, 0, socket.AF_UNIX)] if local else []
    code = [
        (load, 0, 0, 4),
        (equal, 1, 0, arch),
        (back, 0, 0, _REFUSE),
        (load, 0, 0, 0),
        (at_least, 0, 1, _X32),
        (back, 0, 0, _REFUSE),
        (equal, 0, 1, _IO_URING_SETUP),
        (back, 0, 0, _REFUSE),
        (equal, 1, 0, number),
        (back, 0, 0, _ALLOW),
        (load, 0, 0, 16),
        *family,
        (back, 0, 0, _REFUSE),
        (back, 0, 0, _ALLOW),
    ]
    held = _filtered(code)
    _landlock(files=False, readable=())
    return held


def without_amx() -> bool:
    """Refuse the permission for AMX's tiles; whether that is possible. All threads, all children, for ever.

    What asks for it then takes its other way.
    """
    if platform.machine() != "x86_64" or not _no_new_privileges():
        return False
    load, equal, back = 0x20, 0x15, 0x06
    code = [
        (load, 0, 0, 4),
        (equal, 0, 5, _MACHINES["x86_64"][0]),
        (load, 0, 0, 0),
        (equal, 0, 3, _ARCH_PRCTL),
        (load, 0, 0, 16),
        (equal, 0, 1, _REQUEST_PERMISSION),
        (back, 0, 0, _REFUSE),
        (back, 0, 0, _ALLOW),
    ]
    return _filtered(code, _ALL_THREADS)


def _filtered(code: Sequence[tuple[int, int, int, int]], flags: int = 0) -> bool:
    """Let system calls pass this filter; whether the kernel took it."""
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    filters = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters))
    if flags:
        return bool(_libc().syscall(_SECCOMP, _SECCOMP_SET_FILTER, flags, header) == 0)
    return bool(_libc().prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) == 0)


def without_files(readable: Iterable[str]) -> bool:
    """Refuse to open files but to read those below `readable`; whether that is possible.

    What is open stays open. It holds for this thread and its children, and cannot be taken back.
    """
    return _no_new_privileges() and _landlock(files=True, readable=readable)


def _landlock(files: bool, readable: Iterable[str]) -> bool:
    libc = _libc()
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    rights = sum(bits for since, bits in _FILE_RIGHTS.items() if since <= version) if files else 0
    tcp = _TCP if version >= 4 else 0
    scopes = _SCOPES if version >= 6 else 0
    if not rights | tcp | scopes:
        return False
    wanted = struct.pack("QQQ", rights, tcp, scopes)[
        : 24 if version >= 6 else 16 if version >= 4 else 8
    ]
    rules = libc.syscall(_CREATE_RULESET, wanted, len(wanted), 0)
    if rules < 0:
        return False
    try:
        for path in readable:
            _allow_reading(rules, path)
        return bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _allow_reading(rules: int, path: str) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be read
    try:
        reading = _READ_FILE | (_READ_DIR if Path(path).is_dir() else 0)
        rule = struct.pack("=Qi", reading, place)
        _libc().syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
    finally:
        os.close(place)


def _no_new_privileges() -> bool:
    return bool(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def probe() -> dict[str, bool]:
    """Whether a process of its own can be kept from the "network" and from "files" on this machine."""
    command = [sys.executable, "-I", "-S", __file__]
    try:
        found = json.loads(subprocess.run(command, capture_output=True, timeout=10).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        found = {}
    return {what: found.get(what) is True for what in ("network", "files")}


def _try() -> dict[str, bool]:
    without_network(local=True)
    network = _is_refused(lambda: socket.socket(socket.AF_INET).close())
    local = not _is_refused(lambda: socket.socket(socket.AF_UNIX).close())
    without_files([])
    files = _is_refused(lambda: os.close(os.open("/", os.O_RDONLY)))
    return {"network": network and local, "files": files}


def _is_refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except PermissionError:
        return True
    return False


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_try()))
