"""Stands between the ends of TLS streams and alters one byte of some: LISTEN ADDRESS PORT. Where it stands in a stream is
different for each, and so is the direction; from the seventh stream on nothing is altered."""
import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listens", flush=True)
streams = {}
count = 0
while True:
    for one in select.select([listener, *streams], [], [])[0]:
        if one is listener:
            near, _ = listener.accept()
            far = socket.create_connection((sys.argv[2], int(sys.argv[3])))
            count += 1
            # Within the handshake, just behind it, and far behind it.
            after = [100, 3000, 20000][(count - 1) % 3] if count < 7 else None
            streams[near] = [far, after if count % 2 else None]
            streams[far] = [near, None if count % 2 else after]
            continue
        if one not in streams:
            continue
        other, after = streams[one]
        try:
            data = bytearray(one.recv(65536))
            if data and after is not None:
                if after < len(data):
                    data[after] ^= 0x20
                    streams[one][1] = None
                else:
                    streams[one][1] = after - len(data)
            if data:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (one, other):
                streams.pop(end, None)
                end.close()
