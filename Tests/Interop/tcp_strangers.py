"""Plays strangers that open TCP streams to a gateway: ADDRESS PORT."""
import random
import socket
import sys
import time

where = (sys.argv[1], int(sys.argv[2]))
dice = random.Random(4)


def stream():
    return socket.create_connection(where, timeout=30)


def say(bytes_):
    """One stream that says this and ends."""
    try:
        with stream() as one:
            one.sendall(bytes_)
            time.sleep(0.01)
    except OSError:
        pass


# Scans.
for _ in range(40):
    stream().close()
# Noise, most of which is wrong from the first byte on.
for _ in range(20):
    say(bytes(dice.randrange(256) for _ in range(dice.randrange(1, 3000))) or b"x")
for _ in range(5):
    say(b"IKETCQ and so on")
# Records of every bad length, and what is no packet.
for length in (0, 1):
    say(b"IKETCP" + length.to_bytes(2, "big") + bytes(40))
for length in (2, 3, 4, 5):
    say(b"IKETCP" + length.to_bytes(2, "big") + b"\x07" * (length - 2))
say(b"IKETCP" + b"\x00\x03\xff" + b"\x00\x20" + bytes(30))
# Packets of nobody, many and large.
say(b"IKETCP" + b"".join((n + 2).to_bytes(2, "big") + b"\x99" * n for n in (8, 40, 1400, 9000, 65533)))
# A beginning that never ends, byte by byte, and silence: more than one address may have.
slow = []
for _ in range(24):
    try:
        slow.append(stream())
    except OSError:
        pass
for byte in b"IKETCP\xff\xff" + b"\x42" * 30:
    for one in slow[:8]:
        try:
            one.sendall(bytes([byte]))
        except OSError:
            pass
    time.sleep(0.005)
