"""Plays strangers at a TLS port: ADDRESS PORT. Tells as JSON what became of each kind."""
import json
import random
import socket
import ssl
import sys
import time

where = (sys.argv[1], int(sys.argv[2]))
dice = random.Random(4)
trusting = ssl.create_default_context()
trusting.check_hostname = False
trusting.verify_mode = ssl.CERT_NONE


def stream():
    return socket.create_connection(where, timeout=30)


def encrypted():
    return trusting.wrap_socket(stream())


def ended(one):
    """Seconds until the other side has ended the stream."""
    begin = time.monotonic()
    try:
        while one.recv(65536):
            pass
    except OSError:
        pass
    return time.monotonic() - begin


def hello():
    """The first bytes of a handshake."""
    out = ssl.MemoryBIO()
    one = trusting.wrap_bio(ssl.MemoryBIO(), out)
    try:
        one.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def said(one, bytes_):
    one.sendall(bytes_)
    return ended(one)


found = {}
# A handshake that stops in its middle, one that is over and goes no further, and silence.
half = stream()
half.sendall(hello()[:100])
whole = encrypted()
silent = stream()
begun = encrypted()
begun.sendall(b"IKETCP\x01")
found["silent"] = [ended(one) for one in (half, whole, silent, begun)]
# Noise instead of a handshake, of no version of TLS, and behind one.
for _ in range(20):
    with stream() as one:
        said(one, b"\x16\x02" + dice.randbytes(600))
for _ in range(10):
    with encrypted() as one:
        said(one, b"IKETCP\x00\x01")
# More than one address may have.
crowd = []
for _ in range(40):
    try:
        crowd.append(stream())
    except OSError:
        pass
found["crowd"] = max(ended(one) for one in crowd)
# Many handshakes at once.
refused = 0
for _ in range(120):
    try:
        encrypted().close()
    except OSError:
        refused += 1
found["refused"] = refused
print(json.dumps(found))
