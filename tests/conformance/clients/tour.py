"""Steps of a tour through a service: each says on one line whether it went as Google documents it, and the next follows."""

import signal
import sys
import traceback

# A step is a handful of calls on this machine; more is a client that waits for what never comes.
SECONDS = 25


class Late(Exception):
    """A step took too long."""


def _late(*_):
    raise Late(f"not done after {SECONDS} s")


def check(holds, what):
    """Fails the step unless this holds."""
    if not holds:
        raise AssertionError(what)


def refused(kind, call):
    """The refusal that the call must end in."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, not {answer!r}")


def run(steps):
    """Walks every step, whatever becomes of those before."""
    signal.signal(signal.SIGALRM, _late)
    for step in steps:
        signal.alarm(SECONDS)
        try:
            step()
            print(f"ok {step.__name__}", flush=True)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            said = " ".join(str(error).split())
            print(f"failed {step.__name__}: {type(error).__name__}: {said}", flush=True)
        finally:
            signal.alarm(0)
