"""Reads a captured TCP stream by RFC 9329, and opens the ESP packets inside with scapy.

Takes a description: capture (a pcap of Ethernet frames), port (of the side that was dialled), associations.
Prints for each direction: prefix (hex, what comes before the first record), records, opened, dummies, failures.
"""
import json
import logging
import sys

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import IP, TCP, IPv6, PcapReader  # noqa: E402
from esp import Association, is_inner  # noqa: E402


def streams(path, port):
    """The bytes of each direction, in the order of their sequence numbers."""
    pieces = {"dialler": [], "listener": []}
    starts = {}
    for frame in PcapReader(path):
        if TCP not in frame or port not in (frame[TCP].sport, frame[TCP].dport):
            continue
        tcp = frame[TCP]
        name = "dialler" if tcp.dport == port else "listener"
        if "S" in tcp.flags:
            starts[name] = (tcp.seq + 1) & 0xFFFFFFFF
        below = frame[IP].len - frame[IP].ihl * 4 if IP in frame else frame[IPv6].plen
        payload = bytes(tcp.payload)[: below - tcp.dataofs * 4]
        if payload:
            pieces[name].append((tcp.seq, payload))
    result = {}
    for name, list_ in pieces.items():
        data = b""
        for seq, payload in sorted(((s - starts[name]) & 0xFFFFFFFF, p) for s, p in list_):
            assert seq <= len(data), f"a hole in the stream of the {name}"
            data += payload[len(data) - seq :]
        result[name] = data
    return result


def main():
    with open(sys.argv[1]) as file:
        description = json.load(file)
    keys = {entry["spi"]: Association(entry) for entry in description["associations"]}
    answer = {}
    for name, data in streams(description["capture"], description["port"]).items():
        found = {"prefix": "", "records": 0, "opened": 0, "dummies": 0, "inner": 0, "failures": []}
        if data[:6] == b"IKETCP":
            found["prefix"] = data[:6].hex()
            data = data[6:]
        while data:
            length = int.from_bytes(data[:2], "big")
            if length < 2 or length > len(data):
                found["failures"].append(f"a record of {length} bytes where {len(data)} are left")
                break
            record, data = data[2:length], data[length:]
            found["records"] += 1
            try:
                next_header, inner = keys[int.from_bytes(record[:4], "big")].open(record)
                found["opened"] += 1
                if next_header == 59:
                    found["dummies"] += 1
                elif not is_inner(next_header, inner):
                    raise ValueError(f"not what next header {next_header} says")
                else:
                    found["inner"] += len(inner)
            except Exception as error:  # noqa: BLE001
                found["failures"].append(f"{type(error).__name__}: {error}")
        found["failures"] = found["failures"][:5]
        answer[name] = found
    print(json.dumps(answer))


main()
