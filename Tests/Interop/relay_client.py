"""A gateway's side of an enrolment, written from docs/RELAY.md, docs/HAIRPIN.md and docs/HANDSHAKE.md alone: DESCRIPTION.

The description is JSON: address and port of an identity relay, its GID, and files of private keys: of a gateway that a rule
names, and of one that none names. What came of it is printed as JSON.
"""
import hashlib
import ipaddress
import json
import os
import socket
import struct
import sys
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

CONTEXT = bytes.fromhex("F0EFF02FBFF43D0FE7930C3C6E6174EA")
HELLO, CHALLENGE, REFUSED, HOLD, HELD, ENROL, ENROLLED, OLDER = 1, 2, 5, 8, 9, 12, 13, 15


# Identities (docs/HANDSHAKE.md, "Identities")


def gid(algorithm, host_identity):
    if algorithm == 7:
        suite, middle = 2, hashlib.sha384(CONTEXT + host_identity).digest()[18:30]
    else:
        suite, middle = 5, hashlib.shake_128(CONTEXT + host_identity[4:]).digest(12)
    return bytes.fromhex("200100") + bytes([0x20 | suite]) + middle


class Identity:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.key = serialization.load_pem_private_key(file.read(), None)
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            point = self.key.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
            self.algorithm, self.host_identity = 7, b"\0\1" + point
        else:
            public = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            self.algorithm, self.host_identity = 13, b"\0\1\0\0" + public
        self.gid = gid(self.algorithm, self.host_identity)

    def sign(self, data):
        if self.algorithm == 13:
            return self.key.sign(data)
        r, s = utils.decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def is_signed(algorithm, host_identity, signature, data):
    try:
        if algorithm == 13:
            ed25519.Ed25519PublicKey.from_public_bytes(host_identity[4:]).verify(signature, data)
        else:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), host_identity[2:])
            whole = utils.encode_dss_signature(
                int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
            key.verify(whole, data, ec.ECDSA(hashes.SHA384()))
        return True
    except InvalidSignature:
        return False


# Messages (docs/HAIRPIN.md, "Messages"; docs/RELAY.md, "Messages")


def message(kind, fields, detail=0):
    return bytes(4) + b"CHP" + bytes([1, kind, detail]) + struct.pack("!H", 12 + len(fields)) + fields


class Relay:
    def __init__(self, address, port, gid):
        self.where, self.gid = (address, port), gid
        self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.lengths = []

    def say(self, question, patience=2.0):
        """What is answered: kind, detail and fields; None: nothing."""
        self.socket.sendto(question, self.where)
        self.socket.settimeout(patience)
        try:
            answer = self.socket.recv(2048)
        except socket.timeout:
            return None
        self.lengths.append([len(question), len(answer)])
        assert answer[:8] == bytes(4) + b"CHP\1", answer.hex()
        assert struct.unpack("!H", answer[10:12])[0] == len(answer), answer.hex()
        return answer[8], answer[9], answer[12:], answer

    def cookie(self, nonce):
        kind, detail, fields, _ = self.say(message(HELLO, nonce + bytes(16) + bytes(80 - 12 - 32)))
        assert kind == CHALLENGE and detail == 0 and fields[:16] == nonce and len(fields) == 48
        return fields[16:]

    def enrol(self, identity, sequence, token=bytes(16), spoil=None, patience=2.0):
        nonce = os.urandom(16)
        cookie = self.cookie(nonce)
        if spoil == "cookie":
            cookie = bytes([cookie[0] ^ 1]) + cookie[1:]
        fields = nonce + cookie + token + struct.pack("!QHH", sequence, identity.algorithm, len(identity.host_identity))
        fields += identity.host_identity + struct.pack("!HH", 0, 64)
        fields += bytes(max(224 - 12 - len(fields) - 64, 0))
        whole = message(ENROL, fields + bytes(64))
        signature = identity.sign(b"culvert relay enrolment 1" + self.gid + whole[:-64])
        if spoil == "signature":
            signature = bytes([signature[0] ^ 1]) + signature[1:]
        answer = self.say(whole[:-64] + signature, patience)
        if answer is not None:
            assert answer[2][:16] == nonce
        return answer

    def is_own(self, identity, label, kind, key_at, answer):
        """Whether the relay has signed an answer, whose key stands at that place of the fields."""
        assert answer[0] == kind and answer[1] == 0
        algorithm, count = struct.unpack("!HH", answer[2][key_at : key_at + 4])
        host_identity = answer[2][key_at + 4 : key_at + 4 + count]
        signature = answer[2][key_at + 4 + count :]
        return (
            len(signature) == 64
            and gid(algorithm, host_identity) == self.gid
            and is_signed(algorithm, host_identity, signature, label + identity.gid + answer[3][: -len(signature)])
        )


def main():
    with open(sys.argv[1]) as file:
        description = json.load(file)
    relay = Relay(description["address"], description["port"], ipaddress.IPv6Address(description["gid"]).packed)
    identity, other = Identity(description["key"]), Identity(description["other"])
    found = {"gid": str(ipaddress.IPv6Address(identity.gid))}

    sequence = time.time_ns()
    answer = relay.enrol(identity, sequence)
    found["enrolled"] = relay.is_own(identity, b"culvert relay enrolled 1", ENROLLED, 54, answer)
    fields = answer[2]
    token = fields[16:32]
    found["silence"], found["load"] = struct.unpack("!HB", fields[32:35])
    port, address = struct.unpack("!H", fields[36:38])[0], ipaddress.IPv6Address(fields[38:54])
    found["seen"] = [str(address.ipv4_mapped or address), port]
    found["port"] = relay.socket.getsockname()[1]

    answer = relay.say(message(HOLD, token))
    found["held"] = answer[0] == HELD and answer[2] == token
    found["held-by-guess"] = relay.say(message(HOLD, os.urandom(16)), 0.3) is not None

    # A clock that went back: the relay tells of what it knows, signed, and the number above that is taken.
    answer = relay.enrol(identity, sequence - 10**12)
    found["older"] = relay.is_own(identity, b"culvert relay older 1", OLDER, 24, answer)
    known = struct.unpack("!Q", answer[2][16:24])[0]
    found["known"] = known == sequence
    answer = relay.enrol(identity, known + 1, token)
    found["again"] = relay.is_own(identity, b"culvert relay enrolled 1", ENROLLED, 54, answer)
    found["same-token"] = answer[2][16:32] == token

    # Four enrolments of an origin are looked at in a second.
    time.sleep(1.1)
    found["unnamed"] = list(relay.enrol(other, sequence)[:2])
    found["forged"] = list(relay.enrol(identity, known + 2, spoil="signature")[:2])
    found["bad-cookie"] = relay.enrol(identity, known + 3, spoil="cookie", patience=0.3) is not None
    found["longer"] = [pair for pair in relay.lengths if pair[1] > pair[0]]
    print(json.dumps(found))


main()
