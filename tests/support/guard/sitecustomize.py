"""Watches a Python process from its first line on: connections, DNS look-ups, new threads.

Put this directory on PYTHONPATH and name a file in GUARD_REPORT; each attempt is one line of JSON
there. GUARD_RULES (JSON) says what counts, see `tests.support.offline.Rules`. An audit hook cannot
be taken out again, and sees what C code and the standard library do as well.
"""

import _thread
import ipaddress
import json
import os
import sys
import traceback


class RefusedError(RuntimeError):
    """The guard refused it. Not an OSError: no driver takes it for a network error to retry."""


RULES = json.loads(os.environ.get("GUARD_RULES", "{}"))
PORTS = RULES.get("ports")


def counts_address(arguments):
    address = arguments[1] if len(arguments) > 1 else None
    if PORTS is None:
        return True
    return isinstance(address, tuple) and len(address) > 1 and address[1] in PORTS


def counts_dns(arguments):
    return RULES.get("dns", True) and not is_numeric(arguments[0])


def is_numeric(host):
    """Whether a look-up asks nobody: an address in place of a name, or no host at all."""
    try:
        return host is None or bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def counts_thread(arguments):
    wanted = RULES.get("threads", "all")
    return wanted == "all" or (wanted == "driver" and is_driver_thread(arguments[0]))


def is_driver_thread(function):
    """PyMongo's monitors, kill-cursors and event threads, by the names that it gives them."""
    return str(getattr(getattr(function, "__self__", None), "name", "")).startswith("pymongo")


EVENTS = {
    "socket.connect": counts_address,
    "socket.sendto": counts_address,
    "socket.getaddrinfo": counts_dns,
    "socket.gethostbyname": counts_dns,
    "socket.gethostbyaddr": counts_dns,
    "_thread.start_new_thread": counts_thread,
    "_thread.start_joinable_thread": counts_thread,
}


def write_down(what, detail):
    where = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_stack()[-12:-2]]
    line = json.dumps({"what": what, "detail": detail, "pid": os.getpid(), "where": where})
    descriptor = os.open(os.environ["GUARD_REPORT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (line + "\n").encode())
    finally:
        os.close(descriptor)


def watch(event, arguments):
    counts = EVENTS.get(event)
    if counts is None or not counts(arguments):
        return
    detail = repr(arguments[1:] if event == "socket.connect" else arguments)[:300]
    write_down(event, detail)
    if RULES.get("refuse", True):
        raise RefusedError(f"{event} {detail} is refused in this process")


def announce_threads():
    """Raise the audit event of a new thread, which CPython itself does only from 3.12 on."""
    start = _thread.start_new_thread

    def start_new_thread(function, args, kwargs={}):  # noqa: B006
        sys.audit("_thread.start_new_thread", function, args, kwargs)
        return start(function, args, kwargs)

    _thread.start_new_thread = _thread.start_new = start_new_thread
    if "threading" in sys.modules:
        sys.modules["threading"]._start_new_thread = start_new_thread


def run_next_sitecustomize():
    """Run the sitecustomize that this one hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    for directory in sys.path:
        file = os.path.join(directory, "sitecustomize.py")
        if os.path.abspath(directory) != here and os.path.isfile(file):
            with open(file, encoding="utf-8") as source:
                code = compile(source.read(), file, "exec")
            exec(code, {"__name__": "sitecustomize", "__file__": file})
            return


if "GUARD_REPORT" in os.environ:
    write_down("guard on", sys.argv[0] if getattr(sys, "argv", None) else "")
    sys.addaudithook(watch)
    if sys.version_info < (3, 12):
        announce_threads()
run_next_sitecustomize()
