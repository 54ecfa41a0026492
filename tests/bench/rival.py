#!/usr/bin/env python3
"""Carrel beside procrastinate, a well-kept task queue on PostgreSQL, on one machine.

    pip install procrastinate 'psycopg[binary]'          PostgreSQL's own programs; an ordinary user, since initdb
    cargo build --bin carrel                             refuses root
    python3 tests/bench/rival.py --carrel target/debug/carrel --postgres /usr/lib/postgresql/15/bin

Both run the same job, /bin/sh with PROGRAM, for the same two tenants, in at most SLOTS places, and both keep every job
durably before they answer (PostgreSQL with its own defaults, fsync on). Carrel's job is a whole review: a file in a
bucket, its event, a room in a room, a scan, a delivery, a completion. procrastinate's is a row, and a process without
any isolation. So start latency is what isolation and the walk cost; the other two rows are what they are for.

start    submit answered to the first instruction of the job's program; one job after another.
flood    tenant A submits FLOOD jobs at once, then tenant B one every PAUSE seconds; B's start latency. "One key": A's
         jobs share a folder, or a lock of procrastinate's, which runs its holders one by one. "Split keys": every job
         of A has its own folder or lock. Carrel shares places by tenant; procrastinate takes jobs as they came.
         Carrel's tenants may hold SLOTS / 2 places each (`max_concurrent`), so that B always finds one free: these rows
         measure that cap, which procrastinate's tenants do not have, and not the sharing by time. Without it A would hold
         all places, and B would wait for one of A's runs to end first.
kill     JOBS jobs, and kill -9 every few seconds until KILLS are done: of procrastinate's worker alone, and of Carrel
         whole, the cloud that keeps the data included. An effect is what others see: a row that procrastinate's job
         writes at its end, a completion event under an id of its own. procrastinate's stalled jobs are taken up by the
         periodic task that its documentation gives, with heartbeats of a second.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import psycopg
import procrastinate

SLOTS, STARTS, FLOOD, OF_B, PAUSE, JOBS, KILLS = 4, 60, 200, 20, 0.4, 80, 6
WORK_SECONDS = 0.2
SEED = 20261126

# $1 lies beside output/, as the agent contract has it.
PROGRAM = f"""cd "$(dirname "$1")/output" && date +%s%N > deck.html && sleep {WORK_SECONDS} &&
echo '{{"schema":1,"agent":"rival/1","title":"t","summary":"s","findings":[],"not_computed":[]}}' > findings.json"""
COMMAND = ["/bin/sh", "-c", PROGRAM, "rival"]


class Carrel:
    """A fleet of `carrel up`, spoken to by HTTP alone."""

    name = "Carrel"

    def __init__(self, program, directory):
        self.program, self.directory = program, Path(directory)
        tenant = lambda of: {
            "id": of, "uploads_bucket": f"{of}-uploads", "outputs_bucket": f"{of}-outputs", "policy": {"close": "each"},
            "service_account": f"worker-{of}@carrel-local.iam.gserviceaccount.com",
            "job": f"projects/carrel-local/locations/us-central1/jobs/review-{of}",
            "limits": {"max_concurrent": SLOTS // 2, "max_attempts": 10},
        }
        self.registry = self.directory / "given.json"
        self.registry.write_text(json.dumps({"schema": 1, "tenants": [tenant("acme"), tenant("borealis")]}))
        self.start()

    def start(self):
        up = [self.program, "up", "--dir", self.directory / "fleet", "--json", "--agent", json.dumps(COMMAND)]
        if not (self.directory / "fleet" / "tenants.yaml").exists():
            up += ["--tenants", self.registry]
        log = open(self.directory / "up.log", "ab")
        self.up = subprocess.Popen(up, stdout=subprocess.PIPE, stderr=log)
        said = json.loads(self.up.stdout.readline())
        self.cloud, self.api, self.operator = said["cloud"], said["api"], said["tokens"]["operator"]
        self.owner = json.loads((self.directory / "fleet" / "fleet.json").read_text())["owner_token"]

    def kill(self):
        self.up.kill()
        self.up.wait()

    def stop(self):
        self.up.send_signal(signal.SIGINT)
        self.up.wait()

    def call(self, url, token, data=None):
        request = urllib.request.Request(url, data, {"authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def submit(self, tenant, job, key):
        name = urllib.parse.quote(f"{key}/{job}.csv", safe="")
        url = f"{self.cloud}/upload/storage/v1/b/{tenant}-uploads/o?uploadType=media&name={name}"
        self.call(url, self.owner, b"a\n1\n")
        return time.time_ns()

    def effects(self):
        """Of each job, when each of its effects' programs began."""
        found, after = {}, None
        while True:
            query = f"?after={urllib.parse.quote(after)}" if after else ""
            page = json.loads(self.call(f"{self.api}/v1/completions{query}", self.operator))
            for event in page["completions"]:
                # One may be read twice: what others tell events apart by is the id.
                found[event["event"]] = event
            after = page["next"]
            if not page["more"]:
                break
        effects = {}
        for event in found.values():
            files = event["verdict"].get("files") or sys.exit(f"not delivered: {event}")
            deck = next(file["object"] for file in files if file["name"] == "deck.html")
            url = f"{self.cloud}/storage/v1/b/{event['outputs_bucket']}/o/{urllib.parse.quote(deck, safe='')}?alt=media"
            began = int(self.call(url, self.owner))
            effects.setdefault(Path(event["pack"]).stem, []).append(began)
        return effects

    def done(self):
        count, after = 0, None
        while True:
            query = f"?after={urllib.parse.quote(after)}" if after else ""
            page = json.loads(self.call(f"{self.api}/v1/completions{query}", self.operator))
            count, after = count + len(page["completions"]), page["next"]
            if not page["more"]:
                return count


class Procrastinate:
    """A database of its own, one worker process."""

    name = "procrastinate"

    def __init__(self, binaries, directory):
        self.binaries, self.directory = Path(binaries), Path(directory)
        data = self.directory / "data"
        quiet = {"check": True, "stdout": subprocess.DEVNULL}
        subprocess.run([self.binaries / "initdb", "-D", data, "-A", "trust", "-U", "rival"], **quiet)
        flags = f"-k {self.directory} -c listen_addresses=''"
        self.control = [self.binaries / "pg_ctl", "-D", data, "-w", "-l", self.directory / "log"]
        subprocess.run([*self.control, "-o", flags, "start"], **quiet)
        self.dsn = f"host={self.directory} user=rival dbname=postgres"
        self.database = psycopg.connect(self.dsn, autocommit=True)
        app = application(self.dsn, procrastinate.SyncPsycopgConnector)
        app.open()
        app.schema_manager.apply_schema()
        self.database.execute("CREATE TABLE effects (job text, began bigint)")
        self.app = app
        self.start()

    def start(self):
        log = open(self.directory / "worker.log", "ab")
        self.worker = subprocess.Popen([sys.executable, __file__, "--worker", self.dsn], stderr=log)

    def kill(self):
        self.worker.kill()
        self.worker.wait()

    def stop(self):
        self.kill()
        self.app.close()
        self.database.close()
        subprocess.run([*self.control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)

    def submit(self, tenant, job, key):
        lock = f"{tenant}/{key}"
        self.app.configure_task("review", lock=lock).defer(job=job)
        return time.time_ns()

    def effects(self):
        effects = {}
        for job, began in self.database.execute("SELECT job, began FROM effects"):
            effects.setdefault(job, []).append(began)
        return effects

    def done(self):
        return self.database.execute("SELECT count(*) FROM effects").fetchone()[0]

    def open_jobs(self):
        status = "('todo', 'doing')"
        query = f"SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'review' AND status IN {status}"
        return self.database.execute(query).fetchone()[0]


def application(dsn, connector):
    app = procrastinate.App(connector=connector(conninfo=dsn))

    @app.task(name="review", retry=True)
    async def review(job):
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "output").mkdir()
            process = await asyncio.create_subprocess_exec(*COMMAND, f"{place}/input.json")
            if await process.wait():
                raise RuntimeError("the program failed")
            began = int((Path(place) / "output" / "deck.html").read_text())
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database:
            await database.execute("INSERT INTO effects VALUES (%s, %s)", (job, began))

    @app.periodic(cron="* * * * * */2")
    @app.task(name="retry_stalled", queueing_lock="retry_stalled", pass_context=True)
    async def retry_stalled(context, timestamp):
        manager = context.app.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=3):
            await manager.retry_job(job)

    return app


async def work(dsn):
    app = application(dsn, procrastinate.PsycopgConnector)
    async with app.open_async():
        # Another place for the periodic task, which holds one for an instant.
        await app.run_worker_async(concurrency=SLOTS + 1, update_heartbeat_interval=1, stalled_worker_timeout=3)


def wait(system, jobs):
    deadline = time.monotonic() + 600
    while system.done() < jobs:
        if time.monotonic() > deadline:
            sys.exit(f"{system.name}: {system.done()} of {jobs} jobs were done in ten minutes")
        time.sleep(0.05)


def percentile(samples, share):
    return sorted(samples)[min(len(samples) - 1, len(samples) * share // 100)]


def latencies(system, submitted):
    effects = system.effects()
    return [(effects[job][0] - at) / 1e6 for job, at in submitted.items()]


def start(system):
    submitted, before = {}, system.done()
    for at in range(STARTS):
        submitted[f"start-{at}"] = system.submit("acme", f"start-{at}", f"start-{at}")
        wait(system, before + at + 1)
    return latencies(system, submitted)


def flood(system, name, key):
    before, submitted = system.done(), {}
    for at in range(FLOOD):
        system.submit("acme", f"{name}-{at}", key(at))
    for at in range(OF_B):
        submitted[f"{name}-b-{at}"] = system.submit("borealis", f"{name}-b-{at}", f"{name}-b-{at}")
        time.sleep(PAUSE)
    wait(system, before + FLOOD + OF_B)
    return latencies(system, submitted)


def kill(system):
    luck = random.Random(SEED)
    jobs = [f"kill-{at}" for at in range(JOBS)]
    for job in jobs:
        system.submit("acme" if luck.random() < 0.5 else "borealis", job, job)
    for _ in range(KILLS):
        time.sleep(luck.uniform(1.0, 3.0))
        system.kill()
        system.start()
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        effects = system.effects()
        if all(job in effects for job in jobs) and not getattr(system, "open_jobs", int)():
            break
        time.sleep(0.5)
    effects = system.effects()
    lost = sum(job not in effects for job in jobs)
    doubled = sum(len(effects.get(job, [])) > 1 for job in jobs)
    return lost, doubled


def measure(system):
    print(f"{system.name}: starts", file=sys.stderr)
    rows = {"start latency, ms": start(system)}
    print(f"{system.name}: floods", file=sys.stderr)
    rows["B while A floods, one key, ms"] = flood(system, "one", lambda at: "one")
    rows["B while A floods, split keys, ms"] = flood(system, "split", lambda at: f"split-{at}")
    print(f"{system.name}: kills", file=sys.stderr)
    killed = kill(system)
    return rows, killed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--carrel")
    parser.add_argument("--postgres")
    parser.add_argument("--worker")
    given = parser.parse_args()
    if given.worker:
        return asyncio.run(work(given.worker))
    if not given.carrel or not given.postgres:
        parser.error("name both programs: --carrel and --postgres")
    measured = []
    for make, program in [(Carrel, os.path.abspath(given.carrel)), (Procrastinate, given.postgres)]:
        with tempfile.TemporaryDirectory(prefix="rival-") as directory:
            system = make(program, directory)
            try:
                measured.append((system.name, *measure(system)))
            finally:
                system.stop()
    names = "".join(f"{name:>24}" for name, _, _ in measured)
    print(f"{'p50 / p95 / worst':<40}{names}")
    for row in measured[0][1]:
        cells = []
        for _, rows, _ in measured:
            samples = rows[row]
            cells.append(f"{percentile(samples, 50):.0f} / {percentile(samples, 95):.0f} / {max(samples):.0f}")
        print(f"{row:<40}" + "".join(f"{cell:>24}" for cell in cells))
    for at, row in enumerate([f"effects lost, of {JOBS}, {KILLS} kills", f"effects doubled, of {JOBS}"]):
        print(f"{row:<40}" + "".join(f"{killed[at]:>24}" for _, _, killed in measured))


if __name__ == "__main__":
    main()
