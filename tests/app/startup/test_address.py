"""Where the page listens: every way to write a host, every refusal of the system."""

from __future__ import annotations

import errno
import os
import socket

import httpx
import pytest

from app.startup import address as app_address
from app.startup.address import DEFAULT_PORT, find_address
from core.errors import HaploOmniError
from tests.app.startup.helpers import one_sentence


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "server_name", "url"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:{}"),
        ("0.0.0.0", "0.0.0.0", "http://127.0.0.1:{}"),
        ("localhost", "127.0.0.1", "http://127.0.0.1:{}"),
        ("::ffff:127.0.0.1", "127.0.0.1", "http://127.0.0.1:{}"),
        ("[::ffff:7f00:1]", "127.0.0.1", "http://127.0.0.1:{}"),
        ("::1", "[::1]", "http://[::1]:{}"),
        ("[::1]", "[::1]", "http://[::1]:{}"),
        ("0:0:0:0:0:0:0:1", "[::1]", "http://[::1]:{}"),
        ("::", "[::]", "http://[::1]:{}"),
        ("[::]", "[::]", "http://[::1]:{}"),
    ],
)
def test_hosts_and_the_url_they_answer_at(host, server_name, url):
    if "[" in server_name and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    address = find_address(host, 0)
    assert address.server_name == server_name
    assert address.url == url.format(address.port)
    parsed = httpx.URL(address.url)
    with app_address.bound_socket(address.ip, address.port) as listener:
        listener.listen(1)
        socket.create_connection((parsed.host, parsed.port), timeout=5).close()


def test_a_link_local_address_keeps_its_interface(monkeypatch):
    tried = []

    def listen(ip, port):
        tried.append(ip)
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(app_address, "try_listening", listen)
    with pytest.raises(HaploOmniError, match="no address of this machine"):
        find_address("[fe80::1%eth0]", 7861)
    assert tried == ["fe80::1%eth0"]
    with pytest.raises(HaploOmniError, match="network interface, such as fe80::1%eth0"):
        find_address("fe80::1", 7861)


@pytest.mark.parametrize("host", ["192.0.2.77", "2001:db8::77", "255.255.255.255"])
def test_addresses_of_other_machines(host):
    with pytest.raises(HaploOmniError, match="no address of this machine"):
        find_address(host, DEFAULT_PORT)


@pytest.mark.parametrize(
    "host", ["nosuch.invalid", "http://127.0.0.1", "127.0.0.1:8000", "a..b", "x" * 300, "a\0b", "[]"]
)
def test_hosts_that_are_none(host):
    with pytest.raises(HaploOmniError, match=r"unknown|no address") as caught:
        find_address(host, DEFAULT_PORT)
    assert one_sentence(str(caught.value))


def test_a_busy_port():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(HaploOmniError, match=f"port {port} is busy"):
            find_address("127.0.0.1", port)
        with pytest.raises(HaploOmniError, match=f"port {port} is busy"):
            find_address("0.0.0.0", port)


def test_the_next_port_when_the_default_is_busy(monkeypatch):
    def listen(_ip, port):
        if port < DEFAULT_PORT + 3:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return port

    monkeypatch.setattr(app_address, "try_listening", listen)
    assert find_address("127.0.0.1", DEFAULT_PORT).port == DEFAULT_PORT + 3
    with pytest.raises(HaploOmniError, match="busy"):
        find_address("127.0.0.1", DEFAULT_PORT + 1)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EACCES, "may not be opened by this user"),
        (errno.EPERM, "may not be opened by this user"),
        (errno.EADDRNOTAVAIL, "no address of this machine"),
        (errno.EAFNOSUPPORT, "no address of this machine"),
        (errno.EADDRINUSE, "busy"),
    ],
)
def test_each_refusal_of_the_system_has_its_sentence(monkeypatch, code, expected):
    def refuse(_ip, _port):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(app_address, "bound_socket", refuse)
    with pytest.raises(HaploOmniError, match=expected):
        find_address("127.0.0.1", 80)
