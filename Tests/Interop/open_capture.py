"""Opens every ESP packet of a capture and writes the inner packets to captures of their own.

    open_capture.py DESCRIPTION.json

The description names the capture, the file to write for each sender's address, and the associations. Prints JSON: for
each SPI who judged it, how many packets were opened, how many of them were dummies (next header 59) or brought several
packets (next header 144, RFC 9347), and failures.
"""

import json
import struct
import sys

from esp import Association
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP
from scapy.utils import PcapReader

with open(sys.argv[1]) as file:
    description = json.load(file)
associations = {entry["spi"]: Association(entry) for entry in description["associations"]}
opened = {address: [] for address in description["output"]}
report = {spi: {"judge": a.judge, "opened": 0, "dummies": 0, "shared": 0, "failures": []} for spi, a in associations.items()}
unknown = 0


def shared_packets(payload):
    """The whole packets of an AGGFRAG payload (RFC 9347 section 6.1), measured by scapy."""
    sub_type, reserved, offset = struct.unpack("!BBH", payload[:4])
    if (sub_type, reserved, offset) != (0, 0, 0):
        raise ValueError("not a payload that begins with a packet")
    rest, packets = payload[4:], []
    while rest and rest[0] >> 4 != 0:
        version = rest[0] >> 4
        length = IP(rest).len if version == 4 else 40 + IPv6(rest).plen if version == 6 else 0
        if not 20 <= length <= len(rest):
            raise ValueError("a block of version %d with %s bytes" % (version, length))
        packets.append(rest[:length])
        rest = rest[length:]
    return packets


with PcapReader(description["capture"]) as capture:
    for frame in capture:
        if UDP not in frame or ESP not in frame:
            continue
        outer = frame[IP] if IP in frame else frame[IPv6]
        datagram = bytes(frame[ESP])
        association = associations.get(frame[ESP].spi)
        if association is None:
            unknown += 1
            continue
        entry = report[association.spi]
        try:
            next_header, inner = association.open(datagram)
            packets = shared_packets(inner) if next_header == 144 else [inner]
        except Exception as problem:
            entry["failures"].append("number %d: %s %s" % (frame[ESP].seq, type(problem).__name__, problem))
            continue
        entry["opened"] += 1
        if next_header == 59:
            entry["dummies"] += 1
        else:
            entry["shared"] += next_header == 144
            opened[outer.src].extend(packets)

for address, path in description["output"].items():
    with open(path, "wb") as file:
        # A capture of bare IP packets (link type 101).
        file.write(struct.pack("<LHHQLL", 0xA1B2C3D4, 2, 4, 0, 262144, 101))
        for inner in opened[address]:
            file.write(struct.pack("<LLLL", 0, 0, len(inner), len(inner)) + inner)
print(json.dumps({"associations": {str(spi): entry for spi, entry in report.items()}, "unknown": unknown}))
