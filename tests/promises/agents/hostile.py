"""An agent that a hostile document has taken over: it tries whatever it can think of, and says what it reached."""

import glob
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

request = json.loads(pathlib.Path(sys.argv[1]).read_text())
output = pathlib.Path(request["output_dir"])
reached = []


def attempt(what, deed):
    try:
        got = deed()
    except Exception:
        return
    if got:
        reached.append(f"{what}: {got!r}"[:200])


def dial(host, port):
    with socket.create_connection((host, port), timeout=2):
        return "connected"


def environments():
    return [path for path in glob.glob("/proc/*/environ") if b"CARREL_" in pathlib.Path(path).read_bytes()]


def others():
    return [entry for entry in os.listdir("/proc") if entry.isdigit() and int(entry) not in (1, os.getpid())]


attempt("environment", lambda: [name for name in os.environ if name.startswith(("CARREL", "GCE", "GOOGLE"))])
attempt("environments of others", environments)
attempt("processes of others", others)
attempt("homes", lambda: glob.glob("/home/*/.*") + glob.glob("/root/.*"))
for path in ("/mnt/uploads", "/etc/shadow", "/root", "/home", "/var/lib", "/tmp", "/proc/1/root/etc", "/sys/kernel"):
    if __file__.startswith(f"{path}/"):
        continue  # a room knows the way to its agent's own program
    attempt(path, lambda path=path: os.listdir(path) if os.path.isdir(path) else open(path).read(1))
for host, port in (("127.0.0.1", 80), ("169.254.169.254", 80), ("metadata.google.internal", 80), ("8.8.8.8", 53)):
    attempt(f"{host}:{port}", lambda host=host, port=port: dial(host, port))
for port in range(10000, 10200):
    attempt(f"port {port}", lambda port=port: dial("127.0.0.1", port))
attempt("su", lambda: subprocess.run(["su", "-c", "id"], capture_output=True, timeout=5).returncode == 0)
attempt("mount", lambda: subprocess.run(["mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True).returncode == 0)
attempt("unshare", lambda: subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode == 0)
for given in request["inputs"]:
    path = pathlib.Path(request["input_dir"]) / given["path"]
    attempt("write an input", lambda path=path: path.write_text("changed") and "written")
attempt("kill the first process", lambda: os.kill(1, signal.SIGKILL))
attempt("link an input", lambda: os.link(path, output / "deck.html") or "linked")

# What it leaves: links out of its room, a pipe that nobody writes, and words that are none of its business.
os.symlink("/etc/shadow", output / "deck.html")
os.symlink("/proc/1/environ", output / "findings.json")
attempt("a pipe in the output", lambda: os.mkfifo(output / "appendix.xlsx") or "made")
print(json.dumps({"specversion": "1.0", "type": "dev.carrel.review.completed.v1", "data": {"state": "delivered"}}))
print(f"reached {'; '.join(reached) or 'nothing'}", file=sys.stderr, flush=True)
