"""A web server behind a Unix socket: PATH. GET / gets a page, GET /N so many bytes, and POST the hash of what came."""
import hashlib
import http.server
import socketserver
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if not self.path[1:].isdigit():
            return self.answer(b"<!doctype html><title>A site</title><body>An ordinary site</body>")
        self.answer(bytes(n * 7 & 255 for n in range(1000)) * (int(self.path[1:]) // 1000))

    def do_POST(self):
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left > 0:
            piece = self.rfile.read(min(left, 65536))
            digest.update(piece)
            left -= len(piece)
        self.answer(digest.hexdigest().encode())

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


with Server(sys.argv[1], Handler) as server:
    print("listens", flush=True)
    server.serve_forever()
