"""Where the page listens, found before anything is loaded. Imports nothing heavy."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass

from core.errors import HaploOmniError

DEFAULT_PORT = 7860
TRIED_PORTS = 20
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
BUSY = {errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)}
FORBIDDEN = {errno.EACCES, errno.EPERM, getattr(errno, "WSAEACCES", errno.EACCES)}


@dataclass(frozen=True)
class Address:
    """A numeric address and a port that can be listened on.

    Args:
        ip: as a socket takes it; IPv6 without brackets, a link-local one with its interface.
        port: 1 to 65535.
    """

    ip: str
    port: int

    @property
    def server_name(self) -> str:
        """As Gradio takes it, which puts it into a URL: IPv6 in brackets."""
        return f"[{self.ip}]" if ":" in self.ip else self.ip

    @property
    def reachable_ip(self) -> str:
        """Where this machine reaches it: all addresses together are reached on the loopback."""
        return LOOPBACK.get(self.ip, self.ip)

    @property
    def url(self) -> str:
        """What a person opens on this machine."""
        ip = self.reachable_ip
        return f"http://[{ip}]:{self.port}" if ":" in ip else f"http://{ip}:{self.port}"


def find_address(host: str, wanted: int) -> Address:
    """An address of ``host`` and the wanted port; where the default is busy, the next free one of twenty.

    Args:
        host: IPv4, IPv6 with or without brackets, or a name.
        wanted: a port; 0 is any free one.

    Raises:
        HaploOmniError: the host cannot be listened on, the port may not be used, or every port is busy.
    """
    ports = range(wanted, wanted + TRIED_PORTS) if wanted == DEFAULT_PORT else (wanted,)
    refusal: OSError | None = None
    for ip in resolve(host):
        for port in ports:
            try:
                return Address(ip, try_listening(ip, port))
            except OSError as error:
                refusal = error
                if error.errno not in BUSY:
                    break  # another port would not help
    assert refusal is not None  # resolve gives one address at least
    raise HaploOmniError(explain(host, wanted, refusal)) from None


def resolve(host: str) -> list[str]:
    """The numeric addresses of a host, IPv4 first.

    Raises:
        HaploOmniError: it has none.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        # a listening IPv6 socket takes no IPv4, so an IPv4 address in IPv6 form is listened on as IPv4
        mapped = getattr(ip, "ipv4_mapped", None)
        return [str(mapped or ip)]
    try:
        found = socket.getaddrinfo(bare, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, ValueError):
        raise HaploOmniError(
            f"The host '{host}' is unknown; use 127.0.0.1, 0.0.0.0, ::1 or a name of this machine."
        ) from None
    found = [entry for entry in found if entry[0] in (socket.AF_INET, socket.AF_INET6)]
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return list(dict.fromkeys(_numeric(entry[4]) for entry in found))


def _numeric(place: tuple) -> str:
    """A socket address as text, with the interface of a link-local one."""
    return socket.getnameinfo(place, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]


def try_listening(ip: str, port: int) -> int:
    """Listen for a moment, and connect to it.

    Returns:
        The port, or the free one that was found when it was 0.

    Raises:
        OSError: it cannot be listened on or connected to.
    """
    with bound_socket(ip, port) as listener:
        listener.listen(1)
        chosen = listener.getsockname()[1]
        # a broadcast or multicast address can be listened on, but never reached
        socket.create_connection((LOOPBACK.get(ip, ip), chosen), timeout=3).close()
    if ip not in ("127.0.0.1", "0.0.0.0"):
        bound_socket("127.0.0.1", chosen).close()  # Gradio tries the port there, whatever it is to listen on
    return chosen


def bound_socket(ip: str, port: int) -> socket.socket:
    """A socket bound as the server will bind it."""
    family, kind, protocol, _, place = socket.getaddrinfo(
        ip, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would take a port away from another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
    except OSError:
        listener.close()
        raise
    return listener


def explain(host: str, wanted: int, refusal: OSError) -> str:
    """One sentence for the address that could not be listened on."""
    if refusal.errno in BUSY:
        return f"The port {wanted} is busy; choose another with --port."
    if refusal.errno in FORBIDDEN:
        return f"The port {wanted} may not be opened by this user; choose one from 1024 to 65535 with --port."
    if "fe80:" in host.lower() and "%" not in host:
        return f"The host '{host}' needs the name of its network interface, such as {host.strip('[]')}%eth0."
    fault = f"The host '{host}' is no address of this machine that can be listened on"
    return f"{fault}; use 127.0.0.1, 0.0.0.0 or ::1."
