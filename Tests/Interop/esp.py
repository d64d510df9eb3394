"""ESP as others implement it: scapy, and for what scapy lacks (RFC 8750) the RFC by hand over python-cryptography.

Nothing here is shared with Culvert but the keys.
"""

import struct

import cryptography
import scapy
from cryptography.hazmat.primitives.ciphers import aead
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

SCAPY_NAMES = {
    "aes-128-gcm": "AES-GCM",
    "aes-256-gcm": "AES-GCM",
    "chacha20-poly1305": "CHACHA20-POLY1305",
}
OUTER = IP(src="192.0.2.2", dst="192.0.2.1")


class Association:
    """One direction: `open` and `seal` turn sealed datagrams into (next header, inner bytes) and back."""

    def __init__(self, description):
        self.spi = description["spi"]
        self.cipher = description["cipher"]
        self.key = bytes.fromhex(description["key"])
        self.extended = description["extended"]
        # The half of the sequence number that is not sent.
        self.high = description["high"]
        self.implicit = description["implicitIV"]
        self.next = description.get("next", 1)
        make = aead.ChaCha20Poly1305 if self.cipher == "chacha20-poly1305" else aead.AESGCM
        self.aead = make(self.key[:-4])
        self.judge = "cryptography " + cryptography.__version__
        if not self.implicit:
            self.scapy = SecurityAssociation(
                ESP, spi=self.spi, crypt_algo=SCAPY_NAMES[self.cipher], crypt_key=self.key, tunnel_header=OUTER,
                nat_t_header=UDP(sport=4500, dport=4500), esn_en=self.extended, esn=self.high)
            self.judge = "scapy " + scapy.VERSION

    def _number(self, low):
        return struct.pack("!LL", self.high if self.extended else 0, low)

    def _additional(self, low):
        """RFC 4106 section 5, RFC 7634 section 2.1."""
        return struct.pack("!L", self.spi) + (self._number(low) if self.extended else self._number(low)[4:])

    def open(self, datagram):
        """Raises when it is not authentic, its padding is wrong, or two judges disagree."""
        spi, low = struct.unpack("!LL", datagram[:8])
        if spi != self.spi:
            raise ValueError("another SPI")
        # RFC 8750 section 4: the number is the IV.
        iv, sealed = (self._number(low), datagram[8:]) if self.implicit else (datagram[8:16], datagram[16:])
        plain = self.aead.decrypt(self.key[-4:] + iv, sealed, self._additional(low))
        length, next_header = plain[-2], plain[-1]
        inner = plain[:len(plain) - 2 - length]
        if plain[len(inner):-2] != bytes(range(1, length + 1)):
            raise ValueError("padding")
        if not self.implicit:
            # As it came off a wire: scapy finds UDP port 4500 and ESP in it by itself.
            packet = IP(bytes(OUTER / UDP(sport=4500, dport=4500) / Raw(datagram)))
            if bytes(self.scapy.decrypt(packet, esn_en=self.extended, esn=self.high)) != inner:
                raise ValueError("scapy finds another inner packet")
        return next_header, inner

    def seal(self, inner):
        """A datagram around an inner packet, a scapy one."""
        low, self.next = self.next, self.next + 1
        if not self.implicit:
            sealed = self.scapy.encrypt(inner, seq_num=low, esn_en=self.extended, esn=self.high)
            return bytes(sealed[UDP].payload)
        plain = bytes(inner)
        padding = -(len(plain) + 2) % 4
        plain += bytes(range(1, padding + 1)) + bytes([padding, 4 if isinstance(inner, IP) else 41])
        return struct.pack("!LL", self.spi, low) + self.aead.encrypt(
            self.key[-4:] + self._number(low), plain, self._additional(low))


def is_inner(next_header, inner):
    """Whether a payload is what its next header says."""
    return (next_header == 4 and IP(inner).version == 4) or (next_header == 41 and IPv6(inner).version == 6)
