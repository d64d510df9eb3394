"""Plays the partner of a gateway: seals echo requests, sends them in UDP, and opens what comes back.

    exchange.py DESCRIPTION.json

Runs in the network namespace of 192.0.2.2. For each entry of the description, which has an association for each
direction and inner addresses, it sends requests of several sizes and expects each to be answered. Prints JSON: for each
entry who judged it, how many were answered, and failures.
"""

import json
import socket
import sys
import time

from esp import Association, is_inner
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Raw

with open(sys.argv[1]) as file:
    description = json.load(file)
path = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
path.bind(("192.0.2.2", 4500))
path.connect(("192.0.2.1", 4500))
path.settimeout(0.5)


def request(entry, number, size):
    payload = bytes((number + i * 7) & 255 for i in range(size))
    if ":" in entry["source"]:
        header = IPv6(src=entry["source"], dst=entry["destination"])
        return header / ICMPv6EchoRequest(id=0x4242, seq=number, data=payload), payload
    header = IP(src=entry["source"], dst=entry["destination"])
    return header / ICMP(type=8, id=0x4242, seq=number) / Raw(payload), payload


def is_answer(inner, entry, number, payload):
    if ":" in entry["source"]:
        packet = IPv6(inner)
        return (
            ICMPv6EchoReply in packet and packet[ICMPv6EchoReply].seq == number
            and packet[ICMPv6EchoReply].id == 0x4242 and bytes(packet[ICMPv6EchoReply].data) == payload
            and (packet.src, packet.dst) == (entry["destination"], entry["source"]))
    packet = IP(inner)
    return (
        ICMP in packet and packet[ICMP].type == 0 and packet[ICMP].id == 0x4242 and packet[ICMP].seq == number
        and bytes(packet[ICMP].payload)[:len(payload)] == payload
        and (packet.src, packet.dst) == (entry["destination"], entry["source"]))


def exchange(entry, sending, receiving, number, size):
    """None when the request was answered; otherwise what was wrong."""
    inner, payload = request(entry, number, size)
    path.send(sending.seal(inner.__class__(bytes(inner))))
    limit = time.monotonic() + 2
    while time.monotonic() < limit:
        try:
            datagram = path.recv(65535)
        except socket.timeout:
            continue
        if datagram[:4] != receiving.spi.to_bytes(4, "big"):
            continue
        try:
            next_header, answer = receiving.open(datagram)
        except Exception as problem:
            return "%d bytes: %s %s" % (size, type(problem).__name__, problem)
        if next_header != 59 and is_inner(next_header, answer) and is_answer(answer, entry, number, payload):
            return None
    return "%d bytes: no answer" % size


report = []
associations = {}
for entry in description["entries"]:
    pair = []
    for direction in ("sending", "receiving"):
        spi = entry[direction]["spi"]
        if spi not in associations:
            associations[spi] = Association(entry[direction])
        pair.append(associations[spi])
    result = {"name": entry["name"], "judge": pair[0].judge, "answered": 0, "failures": []}
    for number, size in enumerate(description["sizes"]):
        problem = exchange(entry, pair[0], pair[1], number, size)
        if problem is None:
            result["answered"] += 1
        else:
            result["failures"].append(problem)
    report.append(result)
print(json.dumps(report))
