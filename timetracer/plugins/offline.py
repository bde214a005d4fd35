"""Guards on driver internals: while a session only replays, nothing connects, waits or looks up.

A client's topology stays unopened and is filled with what the recorded client knew of its servers,
so that `nodes`, `primary`, `is_mongos` and their kin answer as they did. Whatever would still go to
a server, such as a method that has no row, ends in a clear miss.
"""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any

from pymongo.errors import InvalidOperation
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription
from pymongo.server_type import SERVER_TYPE

from timetracer.call_sites import here, site_of
from timetracer.codec import from_json, to_json
from timetracer.driver import Exchange, GuardRow
from timetracer.errors import MissError
from timetracer.model import Json
from timetracer.plugins import clients, commands, cursors
from timetracer.process import current, process_wide
from timetracer.session import CURRENT, Session

_OFFLINE = "_timetracer_offline"


def replaying(lib: str | None = None) -> Session | None:
    """Return the session that only replays, if the calling code belongs to one.

    Args:
        lib: the library that is asked for; None where that cannot be told, which counts as
            replayed unless some library is passed through to its server.
    """
    return _only_replays(current(), lib)


def _replaying_everywhere(lib: str | None = None) -> bool:
    # Driver threads belong to no request: they rest while the process as a whole replays.
    return _only_replays(process_wide(), lib) is not None


def _only_replays(state: object, lib: str | None) -> Session | None:
    if not isinstance(state, Session) or not state.only_replays:
        return None
    if lib is None:
        return None if state.passthrough else state
    return state if lib in clients.enabled and lib not in state.passthrough else None


def _lib_of(instance: Any) -> str | None:
    """Return whose a client, topology, monitor or pool is; None for anything else."""
    if hasattr(type(instance), "start_session"):
        return clients.lib_of(instance)  # first: a client has a database of any name
    options = getattr(instance, "opts", None)
    if options is None:
        settings = getattr(instance, "_settings", None)
        options = getattr(settings, "pool_options", None)
    return clients.driver_lib(options) if options is not None else None


# ------------------------------------------------------------------------------- topology


def topology_to_json(client: Any) -> tuple[str, Json]:
    """Return a client's seeds as text, and what it knows of its servers as JSON."""
    topology = client._topology
    servers = [
        {"address": to_json(list(address)), "hello": to_json(_hello_of(description))}
        for address, description in topology.description.server_descriptions().items()
        if description.is_server_type_known
    ]
    return seeds_of(client), servers


def seeds_of(client: Any) -> str:
    """Return the host and port pairs that a client was given, as text."""
    return _joined(frozenset(getattr(client._topology_settings, "seeds", None) or ()))


@cache
def _joined(seeds: frozenset[tuple[str, int]]) -> str:
    return ",".join(sorted(f"{host}:{port}" for host, port in seeds))


def _hello_of(description: Any) -> dict[str, Any]:
    """Return the server's hello reply, as far as the driver kept it."""
    kind = description.server_type
    hello: dict[str, Any] = {
        "ok": 1,
        "isWritablePrimary": description.is_writable,
        "secondary": kind == SERVER_TYPE.RSSecondary,
        "arbiterOnly": kind == SERVER_TYPE.RSArbiter,
        "minWireVersion": description.min_wire_version,
        "maxWireVersion": description.max_wire_version,
        "maxBsonObjectSize": description.max_bson_size,
        "maxMessageSizeBytes": description.max_message_size,
        "maxWriteBatchSize": description.max_write_batch_size,
        "logicalSessionTimeoutMinutes": description.logical_session_timeout_minutes,
        "setName": description.replica_set_name,
        "hosts": [f"{host}:{port}" for host, port in sorted(description.all_hosts)],
        "primary": ":".join(map(str, description.primary)) if description.primary else None,
        "me": ":".join(map(str, description.me)) if description.me else None,
        "tags": dict(description.tags),
        "setVersion": description.set_version,
        "electionId": description.election_id,
        "msg": "isdbgrid" if kind == SERVER_TYPE.Mongos else None,
    }
    if kind == SERVER_TYPE.Standalone:
        hello["hosts"] = None
    return {key: value for key, value in hello.items() if value not in (None, False, {}, [])}


def take_offline(client: Any, session: Session) -> None:
    """Give a client whose topology was never opened what the recorded client knew."""
    if client._topology is None:
        client._init_background()
    if client._topology._opened or getattr(client, _OFFLINE, None) is session:
        return
    if client._topology.description.has_known_servers:
        client._init_background()
    setattr(client, _OFFLINE, session)
    _fill(client._topology, session.topology(seeds_of(client)) or [])


def _fill(topology: Any, servers: Json) -> None:
    # Twice: the first reply may name the server otherwise than the URI did, and only the second
    # then finds the address that the reply named.
    for _ in range(2):
        for server in servers:
            host, port = from_json(server["address"])
            _apply(topology, (host, port), from_json(server["hello"]))


def _apply(topology: Any, address: tuple[str, int], hello: dict[str, Any]) -> None:
    known = topology._description
    addresses = list(known.server_descriptions())
    if address not in known.server_descriptions():
        if len(addresses) != 1 or known.has_known_servers:
            return
        address = addresses[0]  # another URI than the recorded one, with one seed
    description = ServerDescription(address, Hello(hello), round_trip_time=0.0)
    from pymongo.topology_description import updated_topology_description

    topology._description = updated_topology_description(known, description)


# ------------------------------------------------------------------------------- guards


def get_topology(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    """`_get_topology`: never opened in replay; opened anew once replay is over."""
    state = current()
    session = None
    if isinstance(state, Session) and state.only_replays:
        session = _only_replays(state, clients.lib_of(client))
    if session is None:
        if vars(client).get(_OFFLINE) is not None:
            delattr(client, _OFFLINE)
            client._init_background()
        return wrapped(*args, **kwargs)
    take_offline(client, session)
    topology = client._topology
    return _awaited(topology) if inspect.iscoroutinefunction(wrapped) else topology


async def _awaited(value: Any) -> Any:
    return value


def select_servers(wrapped: Any, topology: Any, args: Any, kwargs: Any) -> Any:
    """`Topology.select_servers`: among the recorded servers, without waiting."""
    state = current()
    if not isinstance(state, Session) or not state.only_replays:
        return wrapped(*args, **kwargs)  # before it is looked up whose the topology is
    session = _only_replays(state, _lib_of(topology))
    if session is None:
        return wrapped(*args, **kwargs)
    bound = inspect.signature(wrapped).bind(*args, **kwargs).arguments
    if getattr(topology, "_closed", False):
        raise InvalidOperation("Cannot use MongoClient after close")
    found = topology._description.apply_selector(bound["selector"], bound.get("address"))
    if not found:
        raise _unreachable(session, "a server is needed, and the cassette tells of none")
    servers = [_server(topology, description) for description in found]
    return _awaited(servers) if inspect.iscoroutinefunction(wrapped) else servers


class _RecordedServer:
    """Stands for a server that the recorded client knew; it can be looked at, not connected to."""

    def __init__(self, description: Any) -> None:
        self.description = description

    @property
    def pool(self) -> Any:
        raise _unreachable(replaying(), "a connection is needed")


def _server(topology: Any, description: Any) -> Any:
    return _RecordedServer(description)


def refuse(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """A connection's first step: never taken in replay."""
    session = replaying(_lib_of(instance))
    if session is None:
        return wrapped(*args, **kwargs)
    raise _unreachable(session, "a connection is needed")


def _unreachable(session: Session | None, why: str) -> MissError:
    where = session.where if session is not None else "the cassette"
    error = MissError(
        f"this call cannot be replayed from {where}: {why}, and replay never connects.\n"
        "The method is not recorded, or was called otherwise than it was recorded; "
        "docs/pymongo.md lists what is recorded.",
        cassette=where,
        call_site=site_of(*here()),
    )
    if session is not None:
        session.keep_miss(error)
    return error


def rest(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """A command that tidies up on the server: not sent in replay."""
    lib = _lib_of(instance)
    if replaying(lib) is None and not _replaying_everywhere(lib):
        return wrapped(*args, **kwargs)
    return _awaited(None) if inspect.iscoroutinefunction(wrapped) else None


def rest_sessions(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    """The end of the sessions of a client: not sent by one that never reached a server."""
    topology = client._topology
    if topology is not None and topology._opened:
        return rest(wrapped, client, args, kwargs)
    return _awaited(None) if inspect.iscoroutinefunction(wrapped) else None


def rest_cursors(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    """The end of cursors that are not read on: those of a cassette are on no server, and a program
    may drop them long after replay."""
    bound = inspect.signature(wrapped).bind(*args, **kwargs).arguments
    name = "cursor_id" if "cursor_id" in bound else "cursor_ids"
    given = bound[name]
    if isinstance(given, int):
        held = _held(given)
        if not cursors.is_replayed(given):
            go_on = partial(rest, wrapped, client, args, kwargs)
            if not isinstance(held, cursors.CursorOutcome):
                return go_on()
            awaits = inspect.iscoroutinefunction(wrapped)
            return cursors.while_closing(held, client, go_on, awaits=awaits)
        if isinstance(held, cursors.Reading):
            held.tell(commands.CLOSING, list, bound.get("session"))
    else:
        bound[name] = [number for number in given if not cursors.is_replayed(number)]
        if bound[name]:
            return rest(wrapped, client, (), bound)
    return _awaited(None) if inspect.iscoroutinefunction(wrapped) else None


def _held(number: int) -> Any:
    """Return the recording or the reading of a cursor whose client has listeners, if it is known
    here; it is forgotten."""
    state = current()
    return state.open_cursors.pop(number, None) if isinstance(state, Session) else None


def rest_in_thread(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """A round of a driver's own thread or task: left out while the process replays."""
    if not _replaying_everywhere(_lib_of(instance)):
        return wrapped(*args, **kwargs)
    return _awaited(True) if inspect.iscoroutinefunction(wrapped) else True


def stay_closed(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    """`Topology.open` and the start of a driver's thread or task: not in replay."""
    if replaying(_lib_of(instance)) is None:
        return wrapped(*args, **kwargs)
    return _awaited(None) if inspect.iscoroutinefunction(wrapped) else None


def srv_hosts(wrapped: Any, resolver: Any, args: Any, kwargs: Any) -> Any:
    """The DNS look-up of mongodb+srv: in replay the name itself is the only host."""
    if replaying() is None:
        return wrapped(*args, **kwargs)
    name = getattr(resolver, "_SrvResolver__fqdn", "recorded")
    hosts = [(name, 27017)]
    return _awaited(hosts) if inspect.iscoroutinefunction(wrapped) else hosts


def srv_options(wrapped: Any, resolver: Any, args: Any, kwargs: Any) -> Any:
    """The DNS look-up of mongodb+srv's options: none in replay."""
    if replaying() is None:
        return wrapped(*args, **kwargs)
    return _awaited(None) if inspect.iscoroutinefunction(wrapped) else None


def watch_property(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    """A property that tells of the servers: kept when recording, as recorded in replay."""
    state = current()
    lib = clients.lib_of(client)
    if not isinstance(state, Session) or lib in state.passthrough or lib not in clients.enabled:
        return wrapped(*args, **kwargs)
    if state.only_replays:
        return _as_recorded(wrapped, client, state)
    value = wrapped(*args, **kwargs)
    if inspect.isawaitable(value):
        return _noted(value, client, state)
    note_topology(client, state)
    return value


async def _noted(value: Any, client: Any, session: Session) -> Any:
    result = await value
    note_topology(client, session)
    return result


def _as_recorded(wrapped: Any, client: Any, session: Session) -> Any:
    take_offline(client, session)
    live = client._topology
    if not live._opened:
        return wrapped()
    # The client was opened before replay began: what it knows is of another time.
    client._topology = type(live)(client._topology_settings)
    try:
        _fill(client._topology, session.topology(seeds_of(client)) or [])
        return wrapped()
    finally:
        client._topology = live


def note_topology(client: Any, session: Session) -> None:
    """Keep what a client knows of its servers in the recording, once it knows them."""
    if session.recording is None or client is None or client._topology is None:
        return
    seeds = seeds_of(client)
    if seeds not in session.topologies and client._topology.description.has_known_servers:
        session.note_topology(*topology_to_json(client))


def see_reply(wrapped: Any, message: Any, args: Any, kwargs: Any) -> Any:
    """Every reply's decoding: the bytes are kept for the call that is under way."""
    exchange = CURRENT.get()
    if type(exchange) is Exchange and not exchange.sealed:
        exchange.payload = message.payload_document
    return wrapped(*args, **kwargs)


_PROPERTIES = (
    "address",
    "primary",
    "secondaries",
    "arbiters",
    "is_primary",
    "is_mongos",
    "nodes",
    "topology_description",
)


def guards(flavour: str, client: str) -> tuple[GuardRow, ...]:
    """Return the guards of one flavour of PyMongo.

    Args:
        flavour: "synchronous" or "asynchronous".
        client: the client's class name.
    """
    base = f"pymongo.{flavour}"
    owner = f"{base}.mongo_client:{client}"
    return (
        GuardRow(owner, "_get_topology", get_topology),
        GuardRow(f"{base}.topology:Topology", "select_servers", select_servers),
        GuardRow(f"{base}.pool:Pool", "connect", refuse),
        *(
            GuardRow(owner, name, wrapper)
            for name, wrapper in (
                ("_end_sessions", rest_sessions),
                ("_process_kill_cursors", rest),
                ("_close_cursor_now", rest_cursors),
                ("_kill_cursors", rest_cursors),
            )
        ),
        GuardRow(owner, "_process_periodic_tasks", rest_in_thread),
        *(
            GuardRow(f"{base}.monitor:{name}", "_run", rest_in_thread)
            for name in ("Monitor", "SrvMonitor", "_RttMonitor")
        ),
    )


def openers(flavour: str, client: str, executor: str) -> tuple[GuardRow, ...]:
    """Return the guards on what opens a client or may be asked of it first, of one flavour.

    Args:
        flavour: "synchronous" or "asynchronous".
        client: the client's class name.
        executor: the class of its threads or tasks.
    """
    base = f"pymongo.{flavour}"
    return (
        *(
            GuardRow(f"{base}.mongo_client:{client}", name, watch_property)
            for name in _PROPERTIES
        ),
        GuardRow(f"{base}.topology:Topology", "open", stay_closed),
        *(
            GuardRow(place, "open", stay_closed, optional=True)
            for place in dict.fromkeys(
                (
                    f"{base}.periodic_executor:{executor}",
                    f"pymongo.periodic_executor:{executor}",
                    f"{base}.periodic_executor:PeriodicExecutor",
                )
            )
        ),
        *(
            GuardRow(f"{module}:_SrvResolver", name, wrapper, optional=True)
            for module in (f"{base}.srv_resolver", "pymongo.srv_resolver")
            for name, wrapper in (("get_hosts", srv_hosts), ("get_options", srv_options))
        ),
    )


SHARED_GUARDS = (
    GuardRow("pymongo.message:_OpMsg", "unpack_response", see_reply),
    GuardRow("pymongo.message:_OpMsg", "raw_response", see_reply),
)
