"""The program that runs another one, confined: a process of its own, which `sandbox` starts; nothing imports it.

It limits itself, asks the kernel to refuse what no test needs, runs the text from its standard input, and reports
behind a secret that the text does not know, so that leaving early is not passing. It needs Python's own library alone.

Sources: Linux's documentation of seccomp filters and of Landlock; system call numbers of x86-64 and of ARM64.
"""

from __future__ import annotations

import contextlib
import os
import sys

SECRET = 32
"""How many bytes of the input are the secret that a report begins with."""

UNABLE = "!"
"""What a report goes on with where nothing was run."""

CALLS = {
    # The audit number of the architecture, that of `clone`, and the system calls that are refused.
    "x86_64": (
        0xC000003E,
        56,
        {
            "processes": (57, 58, 59, 322, 101, 310, 311, 109, 112, 434, 438),
            "signals": (62, 200, 234, 129, 297, 424),
            "network": (41, 425),
            "limits": (160, 302),
            "owners": (90, 91, 268, 452, 92, 93, 94, 260, 188, 189, 190, 197, 198, 199),
            "mounts": (165, 166, 155, 161, 133, 259, 272, 308, 428, 429, 430, 431, 432, 433, 442),
            "machine": (169, 170, 171, 172, 173, 175, 313, 176, 246, 320, 164, 159, 227, 305, 167, 168),
            "kernel": (321, 298, 248, 249, 250),
        },
    ),
    "aarch64": (
        0xC00000B7,
        220,
        {
            "processes": (221, 281, 117, 270, 271, 154, 157, 434, 438),
            "signals": (129, 130, 131, 138, 240, 424),
            "network": (198, 425),
            "limits": (164, 261),
            "owners": (52, 53, 452, 54, 55, 5, 6, 7, 14, 15, 16),
            "mounts": (40, 39, 41, 51, 33, 97, 268, 428, 429, 430, 431, 432, 433, 442),
            "machine": (142, 161, 162, 105, 273, 106, 104, 294, 170, 171, 112, 266, 224, 225),
            "kernel": (280, 241, 217, 218, 219),
        },
    ),
}
"""Known machines; on another one nothing is run."""

_CLONE3, _ENOSYS, _EPERM = 435, 38, 1
_CLONE_THREAD = 0x00010000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06  # of the kernel's small machine
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000


def filter_program(machine: str) -> bytes:
    """Instructions that refuse new processes, signals, sockets and what changes the system; threads may be.

    `clone3` does not exist for the program, so that threads come by `clone`, whose flags can be seen.
    """
    import struct

    audit, clone, refused = CALLS[machine]
    steps: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the call's number
        (_AT_LEAST, 0, 1, 0x40000000),  # x86's further ways to say the same
        (_RETURN, 0, 0, _KILL),
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _REFUSE | _ENOSYS),
    ]
    for number in sorted(number for numbers in refused.values() for number in numbers):
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE | _EPERM)]
    steps += [
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, 16),  # its flags
        (_AND, 0, 0, _CLONE_THREAD),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE | _EPERM),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def refuse_calls(machine: str) -> None:
    """Let the kernel refuse them to this process from now on.

    Raises:
        OSError: it cannot.
    """
    import ctypes

    program = filter_program(machine)

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))

    steps = ctypes.create_string_buffer(program, len(program))
    wanted = Filter(len(program) // 8, ctypes.cast(steps, ctypes.c_void_p))
    library = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter, mode = 38, 22, 2
    if library.prctl(no_new_privileges, 1, 0, 0, 0) or library.prctl(set_filter, mode, ctypes.byref(wanted), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def keep_files(folder: str) -> bool:
    """Let the kernel refuse to change files outside a folder; False where it does not know how (Landlock, Linux 5.13).

    To be called before the calls are refused, which takes privileges away.
    """
    import ctypes
    import struct

    create, add, restrict = 444, 445, 446
    library = ctypes.CDLL(None, use_errno=True)
    version = library.syscall(create, None, 0, 1)
    if version < 1:
        return False
    rights = [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, *([13] if version > 1 else []), *([14] if version > 2 else [])]
    changes = sum(1 << right for right in rights)  # write, remove, make, and later: move, truncate
    wanted = struct.pack("=Q", changes)
    rules = library.syscall(create, wanted, len(wanted), 0)
    if rules < 0:
        return False
    place = os.open(folder, os.O_PATH)
    rule = struct.pack("=Qi", changes, place)
    library.prctl(38, 1, 0, 0, 0)
    done = not library.syscall(add, rules, 1, rule, 0) and not library.syscall(restrict, rules, 0)
    os.close(place)
    os.close(rules)
    return done


def limit(memory: int, seconds: int, written: int) -> None:
    """Bytes of memory, seconds of processor time, bytes of a file; no core files, processes, and few open files."""
    import resource

    for name, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, written),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        hard = resource.getrlimit(name)[1]
        resource.setrlimit(name, (value, value) if hard == resource.RLIM_INFINITY else (min(value, hard), hard))


def main() -> None:
    """Arguments: the machine, where to report, bytes of memory, seconds, bytes of a file, the folder."""
    machine, (report, memory, seconds, written) = sys.argv[1], map(int, sys.argv[2:6])
    data = sys.stdin.buffer.read()
    secret, text = data[:SECRET], data[SECRET:]
    write, leave = os.write, os._exit  # whatever the program makes of the modules
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        limit(memory, seconds, written)
        keep_files(sys.argv[6])
        refuse_calls(machine)
    except (OSError, ValueError) as error:
        write(report, secret + f"{UNABLE}{error}".encode())
        leave(1)
    del data
    try:
        exec(compile(text, "program.py", "exec", dont_inherit=True), {"__name__": "__program__"})
        found = b"passed"
    except BaseException as error:  # leaving is no passing
        found = f"{type(error).__name__}: {error}".encode(errors="replace")[:500]
    with contextlib.suppress(OSError, ValueError, AttributeError):  # too much was printed, or the program closed it
        sys.stdout.flush()
    write(report, secret + found)
    leave(0)


if __name__ == "__main__":
    main()
