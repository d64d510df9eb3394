"""Opens every ESP packet of a capture and writes the inner packets to captures of their own.

    open_capture.py DESCRIPTION.json

The description names the capture, the file to write for each sender's address, and the associations. Prints JSON: for
each SPI who judged it, how many packets were opened, how many of them were dummies (next header 59), and failures.
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
report = {spi: {"judge": a.judge, "opened": 0, "dummies": 0, "failures": []} for spi, a in associations.items()}
unknown = 0

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
        except Exception as problem:
            entry["failures"].append("number %d: %s %s" % (frame[ESP].seq, type(problem).__name__, problem))
            continue
        entry["opened"] += 1
        if next_header == 59:
            entry["dummies"] += 1
        else:
            opened[outer.src].append(inner)

for address, path in description["output"].items():
    with open(path, "wb") as file:
        # A capture of bare IP packets (link type 101).
        file.write(struct.pack("<LHHQLL", 0xA1B2C3D4, 2, 4, 0, 262144, 101))
        for inner in opened[address]:
            file.write(struct.pack("<LLLL", 0, 0, len(inner), len(inner)) + inner)
print(json.dumps({"associations": {str(spi): entry for spi, entry in report.items()}, "unknown": unknown}))
