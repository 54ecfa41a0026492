"""An agent that calls hosts by the proxy of its room, and writes down what it was answered."""

import json
import os
import pathlib
import socket
import sys

request = json.loads(pathlib.Path(sys.argv[1]).read_text())
output = pathlib.Path(request["output_dir"])
address = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")


def ask(host, port=443):
    with socket.create_connection((address[0], int(address[1])), timeout=60) as proxy:
        proxy.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        return int(proxy.recv(4096).split()[1])


answers = {host: ask(host) for host in ("listed.example.com", "other.example.com", "169.254.169.254", "2852039166")}
answers["again"] = ask("other.example.com")
answers["plain"] = ask("listed.example.com", 80)
try:
    socket.create_connection(("8.8.8.8", 53), timeout=2)
    answers["around"] = "connected"
except OSError as error:
    answers["around"] = error.strerror
(output / "deck.html").write_text("<!doctype html><title>Calls</title>")
(output / "findings.json").write_text(json.dumps({
    "schema": 1, "agent": "caller.py/1", "title": "Calls", "summary": json.dumps(answers), "findings": [],
    "not_computed": [],
}))
