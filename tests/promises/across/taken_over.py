"""A task that was taken over, in its room: the victim shows what it has and stays, the attacker tries what it can think
of and writes down what came of each. As an agent, or told so, it only looks around where it lies."""

import ctypes
import errno
import http.client
import json
import os
import pathlib
import resource
import socket
import subprocess
import sys
import time

TENANT = os.environ.get("CARREL_TENANT")
GOALS = json.loads(os.environ.get("GOALS", "{}"))
CLOUD = os.environ.get("CARREL_STORAGE_ENDPOINT", "").removeprefix("http://")
ACCOUNTS = "/computeMetadata/v1/instance/service-accounts"
FLAVOUR = {"Metadata-Flavor": "Google"}
outcomes = {}


def attempt(what, deed):
    """What came of a deed: its answer, or the name of the error that refused it."""
    try:
        outcomes[what] = deed()
    except OSError as error:
        outcomes[what] = errno.errorcode.get(error.errno, type(error).__name__)


def ask(host, path, headers, method="GET", body=None):
    line = http.client.HTTPConnection(host, timeout=30)
    line.request(method, path, body, headers)
    answer = line.getresponse()
    return answer.status, answer.read().decode()


def token():
    status, text = ask(os.environ["GCE_METADATA_HOST"], f"{ACCOUNTS}/default/token", FLAVOUR)
    assert status == 200, text
    return json.loads(text)["access_token"]


def bearer(credentials):
    return {"Authorization": f"Bearer {credentials}"}


def keep(name, what):
    path = f"/upload/storage/v1/b/{TENANT}-outputs/o?uploadType=media&name={name}"
    status, text = ask(CLOUD, path, bearer(token()), "POST", json.dumps(what))
    assert status == 200, text


def dial(kind, address):
    with socket.socket(kind, socket.SOCK_STREAM) as caller:
        caller.settimeout(5)
        caller.connect(address)
    return "connected"


def answering_ports():
    found = []
    for port in range(1, 65536):
        with socket.socket() as caller:
            # A caller may be given the very port that it calls, and answer itself.
            if caller.connect_ex(("127.0.0.1", port)) == 0 and caller.getsockname() != caller.getpeername():
                found.append(port)
    return found


def processes(root="/proc"):
    others = {int(entry) for entry in os.listdir(root) if entry.isdigit()} - {1, os.getpid()}
    return sorted(others)


def entries_below(root):
    return sorted(os.path.join(at, name) for at, below, names in os.walk(root) for name in below + names)


def system(call, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, call)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), call)
    return "done"


def metadata(account, headers=FLAVOUR):
    return ask(os.environ["GCE_METADATA_HOST"], f"{ACCOUNTS}/{account}/token", headers)[0]


def listing(bucket, credentials):
    return ask(CLOUD, f"/storage/v1/b/{bucket}/o", bearer(credentials))[0]


def room_in_a_room():
    """The processes that root of a namespace of its own sees, as a task may make one."""
    look = "import os; print([int(entry) for entry in os.listdir('/proc') if entry.isdigit()])"
    made = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount", "--mount-proc"]
    ran = subprocess.run([*made, sys.executable, "-c", look], capture_output=True, text=True)
    return ran.stdout.strip() or ran.stderr


def attack():
    own = token()
    victim = f"worker-bolt@{GOALS['project']}.iam.gserviceaccount.com"
    attempt("own token", lambda: metadata("default"))
    attempt("the victim's token", lambda: metadata(victim))
    attempt("nobody's token", lambda: metadata(victim.replace("bolt", "nobody")))
    attempt("a token without the header", lambda: metadata("default", {}))
    attempt("a token through a proxy", lambda: metadata("default", FLAVOUR | {"X-Forwarded-For": "1.1.1.1"}))
    attempt("own bucket", lambda: listing("acme-outputs", own))
    attempt("the victim's bucket", lambda: listing("bolt-outputs", own))
    attempt("nobody's bucket", lambda: listing("nobodys-outputs", own))
    for who, leaked in GOALS["leaked"].items():
        attempt(f"the bucket of {who} with its leaked token", lambda: listing("bolt-outputs", leaked))
    # Its parts would pass the door by the token of the whole.
    attempt("a batch", lambda: ask(CLOUD, "/batch/storage/v1", bearer(token()), "POST", "")[0])
    attempt("ports that answer", answering_ports)
    attempt("own volume", lambda: sorted(os.listdir("/mnt/uploads/q3")) if GOALS["volume"] else ["mine.csv"])
    attempt("a socket of the machine", lambda: dial(socket.AF_UNIX, b"\0" + GOALS["socket"].encode()))
    attempt("the victim's socket", lambda: dial(socket.AF_UNIX, b"\0bolt"))
    attempt("the victim's port", lambda: dial(socket.AF_INET, ("127.0.0.1", 7777)))
    attempt("the victim's file", lambda: pathlib.Path("/tmp/bolt").read_text())
    for what, path in GOALS["paths"].items():
        attempt(what, lambda: os.stat(path) and "there")
    attempt("processes of others", processes)
    attempt("the first process", lambda: pathlib.Path("/proc/1/environ").read_bytes().decode())
    attempt("the first process's root", lambda: os.listdir("/proc/1/root"))
    attempt("signal the victim", lambda: os.kill(GOALS["pid"], 0))
    attempt("the victim's environment", lambda: pathlib.Path(f"/proc/{GOALS['pid']}/environ").read_text())
    attempt("the namespaces of the victim", lambda: os.readlink(f"/proc/{GOALS['pid']}/ns/net"))
    attempt("the victim in its environment", lambda: [name for name, held in os.environ.items() if "bolt" in held and name != "GOALS"])
    attempt("mount", lambda: system("mount", b"none", b"/tmp", b"tmpfs", 0, None))
    attempt("processes from a room in its room", room_in_a_room)
    attempt("descriptors", lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 4096)
    attempt("namespaces", lambda: pathlib.Path("/proc/sys/user/max_user_namespaces").read_text().strip())
    attempt("own temporary files", lambda: entries_below("/tmp"))
    keep("report", outcomes)


def show():
    pathlib.Path("/tmp/bolt").write_text("secret")
    named, port = socket.socket(socket.AF_UNIX), socket.socket()
    named.bind(b"\0bolt")
    named.listen()
    port.bind(("127.0.0.1", 7777))
    port.listen()
    # What the attacker will try is possible where it is the victim's own.
    dial(socket.AF_UNIX, b"\0bolt")
    dial(socket.AF_INET, ("127.0.0.1", 7777))
    keep("shown", {"file": pathlib.Path("/tmp/bolt").read_text(), "pid": os.getpid()})
    while True:
        time.sleep(3600)


if TENANT is None:
    sys.exit(json.dumps(entries_below(pathlib.Path(__file__).parent.parent)))
elif "look" in GOALS:
    keep("report", entries_below(GOALS["look"]))
elif TENANT == "bolt":
    show()
else:
    attack()
