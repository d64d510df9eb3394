"""A name server and one that asks it, both of scapy: `names.py serve ADDRESS`, and `names.py DESCRIPTION`.

The server knows one host, by the addresses that it has at home. The client asks for its addresses and for their names,
plainly, with EDNS, and for an answer that is signed, and prints what it was told.
"""

import ipaddress
import json
import socket
import sys

from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT, DNSRRRSIG

HOST4 = "192.168.1.2"
HOST6 = "fd01::2"
NAME = "host.alike."


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listed(records):
    """Records of a section: a list, or in older versions of scapy each the payload of the one before."""
    if isinstance(records, list):
        return records
    found = []
    while records:
        found.append(records)
        records = records.payload
    return found


def answer(query):
    """None for what the server does not know, as if it had not been asked."""
    asked = listed(query.qd)[0]
    name = asked.qname.decode()
    reverse = {ipaddress.ip_address(host).reverse_pointer + ".": NAME for host in (HOST4, HOST6)}
    extended = query.arcount > 0
    wants_signature = extended and listed(query.ar)[0].z & 0x8000
    if asked.qtype == 12 and name in reverse:
        records = DNSRR(rrname=name, type="PTR", ttl=60, rdata=reverse[name])
    elif asked.qtype in (1, 28) and name == NAME:
        records = DNSRR(rrname=name, type=asked.qtype, ttl=60, rdata=HOST4 if asked.qtype == 1 else HOST6)
    else:
        return None
    count = 1
    if wants_signature:
        records = records / DNSRRRSIG(
            rrname=name, ttl=60, typecovered=asked.qtype, algorithm=13, labels=2, originalttl=60, expiration=2000000000,
            inception=1000000000, keytag=1, signersname="alike.", signature=bytes(64))
        count = 2
    return DNS(
        id=query.id, qr=1, aa=1, rd=query.rd, qd=DNSQR(qname=name, qtype=asked.qtype), an=records, ancount=count,
        ar=DNSRROPT(rclass=1232) if extended else None)


def serve(address):
    served = socket.socket(family(address), socket.SOCK_DGRAM)
    served.bind((address, 53))
    print("serving", flush=True)
    while True:
        data, peer = served.recvfrom(4096)
        told = answer(DNS(data))
        if told is not None:
            served.sendto(bytes(told), peer)


def ask(server, number, name, kind, extended, signed):
    asking = socket.socket(family(server), socket.SOCK_DGRAM)
    asking.settimeout(3)
    asking.connect((server, 53))
    query = DNS(id=number, rd=1, qd=DNSQR(qname=name, qtype=kind))
    if extended:
        query.ar = DNSRROPT(rclass=1232, z=0x8000 if signed else 0)
    asking.send(bytes(query))
    try:
        told = DNS(asking.recv(4096))
    except socket.timeout:
        return ["no answer"]
    asked = listed(told.qd)[0]
    if told.id != number or asked.qname.decode() != name or (extended and told.arcount != 1):
        return ["an answer to another question"]
    found = []
    for record in listed(told.an):
        if record.rrname.decode() != name:
            return ["an answer about another name"]
        if record.type != 46:
            found.append(record.rdata.decode() if isinstance(record.rdata, bytes) else record.rdata)
    return found


def main(path):
    with open(path) as file:
        asked = json.load(file)
    questions = [(NAME, 1, "A"), (NAME, 28, "AAAA")]
    for version in "46":
        known = ipaddress.ip_address(asked["known" + version])
        questions.append((known.reverse_pointer + ".", 12, "PTR" + version))
    told = {}
    for manner in ("plain", "edns"):
        for name, kind, label in questions:
            told[f"{manner} {label}"] = ask(asked["server"], len(told) + 1, name, kind, manner == "edns", False)
    told["signed A"] = ask(asked["server"], 99, NAME, 1, True, True)
    print(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        main(sys.argv[1])
