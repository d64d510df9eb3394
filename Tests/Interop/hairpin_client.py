"""Both gateways of a hairpin over UDP, written from docs/HAIRPIN.md alone: FILE FILE, the two that a ticket was written to.

What came of it is printed as JSON.
"""
import base64
import json
import os
import socket
import struct
import sys
import time

from cryptography.hazmat.primitives.asymmetric import ed25519

HELLO, CHALLENGE, PRESENT, ACCEPTED, REFUSED, PROVE, WELCOME, HOLD, HELD = range(1, 10)
UDP = 1


def message(kind, fields, detail=0):
    return bytes(4) + b"CHP" + bytes([1, kind, detail]) + struct.pack("!H", 12 + len(fields)) + fields


class Gateway:
    def __init__(self, path):
        with open(path) as file:
            lines = dict(line.strip().split(": ", 1) for line in file if line.strip() and not line.startswith("#"))
        host, port = lines["proxy"].rsplit(":", 1)
        self.proxy = (host.strip("[]"), int(port))
        self.side = int(lines["side"]) - 1
        self.key = ed25519.Ed25519PrivateKey.from_private_bytes(base64.b64decode(lines["key"]))
        self.ticket = base64.b64decode(lines["ticket"])
        assert self.ticket[:5] == b"CVHT\1"
        self.number = self.ticket[8:24]
        family = socket.AF_INET6 if ":" in self.proxy[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.settimeout(2)
        self.sequence = time.time_ns()

    def ask(self, question, port):
        self.socket.sendto(question, (self.proxy[0], port))
        answer = self.socket.recv(2048)
        assert answer[:8] == bytes(4) + b"CHP\1" and struct.unpack("!H", answer[10:12])[0] == len(answer)
        assert len(answer) <= len(question)
        return answer[8], answer[9], answer[12:]

    def signature(self, kind, nonce, cookie, token):
        self.sequence += 1
        return self.key.sign(
            b"culvert hairpin proof 1" + bytes([kind, self.side, UDP]) + nonce + cookie + token
            + struct.pack("!Q", self.sequence) + self.number)

    def cookie(self, nonce, token, port):
        kind, detail, fields = self.ask(message(HELLO, nonce + token + bytes(80 - 12 - 32)), port)
        assert (kind, detail) == (CHALLENGE, 0) and fields[:16] == nonce
        return fields[16:]

    def present(self, spoil=False):
        nonce = os.urandom(16)
        cookie = self.cookie(nonce, bytes(16), self.proxy[1])
        signature = self.signature(PRESENT, nonce, cookie, bytes(16))
        if spoil:
            signature = bytes([signature[0] ^ 1]) + signature[1:]
        fields = nonce + cookie + struct.pack("!Q", self.sequence) + signature + self.ticket
        kind, detail, fields = self.ask(message(PRESENT, fields, UDP << 4 | self.side), self.proxy[1])
        assert fields[:16] == nonce
        if kind == ACCEPTED:
            self.token = fields[16:32]
            self.port, self.silence, self.left = struct.unpack("!HHI", fields[32:40])
        return kind, detail

    def prove(self):
        nonce = os.urandom(16)
        cookie = self.cookie(nonce, self.token, self.port)
        signature = self.signature(PROVE, nonce, cookie, self.token)
        fields = nonce + cookie + self.token + struct.pack("!Q", self.sequence) + signature
        kind, detail, fields = self.ask(message(PROVE, fields), self.port)
        assert fields[:16] == nonce
        return kind, detail

    def hold(self):
        nonce = os.urandom(16)
        kind, detail, fields = self.ask(message(HOLD, nonce), self.port)
        assert fields[:16] == nonce
        return kind, detail


def main():
    a, b = (Gateway(path) for path in sys.argv[1:3])
    found = {"forged": a.present(spoil=True)}
    found["accepted"] = [a.present(), b.present()]
    found["welcome"] = [a.prove(), b.prove()]
    found["held"] = [a.hold(), b.hold()]
    found["ports-differ"] = a.port != b.port
    # What is sealed, and what begins with four zero bytes and is a handshake's, both pass as they are.
    passed = 0
    for one, other in ((a, b), (b, a)):
        for packet in (bytes([1, 2, 3, 4]) + os.urandom(100), bytes(4) + b";" + os.urandom(63)):
            one.socket.sendto(packet, (one.proxy[0], one.port))
            passed += other.socket.recv(2048) == packet
    found["passed"] = passed
    print(json.dumps(found))


main()
