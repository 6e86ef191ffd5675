"""A process without a network: whatever tries to leave this machine fails, and is noted."""

import socket
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List

LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None)


@contextmanager
def network_blocked() -> Iterator[List[str]]:
    """Let sockets reach this machine only; yields the list of places that were tried."""
    tried: List[str] = []

    def guard(function: Callable, get_place: Callable[[tuple], Any]) -> Callable:
        def guarded(*arguments, **options):
            place = get_place(arguments)
            if place not in LOCAL:
                tried.append(str(place))
                raise OSError(f"the network is blocked: {place}")
            return function(*arguments, **options)

        return guarded

    def host_of(address: Any) -> Any:
        return address[0] if isinstance(address, tuple) else None  # paths are sockets of this machine

    originals = [(socket.socket, name) for name in ("connect", "connect_ex", "sendto")]
    originals += [(socket, "getaddrinfo"), (socket, "gethostbyname")]
    saved = [(owner, name, getattr(owner, name)) for owner, name in originals]
    try:
        for owner, name, function in saved:
            if owner is socket:
                setattr(owner, name, guard(function, lambda arguments: arguments[0]))
            else:
                setattr(owner, name, guard(function, lambda arguments: host_of(arguments[-1])))
        yield tried
    finally:
        for owner, name, function in saved:
            setattr(owner, name, function)
