"""Runs a program for which io_uring is forbidden, as a container's seccomp profile does it.

    without_io_uring.py PROGRAM [ARGUMENT ...]
"""

import ctypes
import os
import struct
import sys

SYS_IO_URING_SETUP = 425  # The same number on all architectures.
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
BPF_LD_W_ABS, BPF_JMP_JEQ_K, BPF_RET_K = 0x20, 0x15, 0x06
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, EPERM = 0x7FFF0000, 0x00050000, 1


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


instructions = b"".join([
    struct.pack("HBBI", BPF_LD_W_ABS, 0, 0, 0),  # The number of the system call.
    struct.pack("HBBI", BPF_JMP_JEQ_K, 0, 1, SYS_IO_URING_SETUP),
    struct.pack("HBBI", BPF_RET_K, 0, 0, SECCOMP_RET_ERRNO | EPERM),
    struct.pack("HBBI", BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW),
])
libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(instructions) // 8, instructions)
for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
    if libc.prctl(*call) != 0:
        sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
