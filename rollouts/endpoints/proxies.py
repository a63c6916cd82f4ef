"""Which proxy leads to a server, by the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""

import ipaddress
import os
import urllib.request
from typing import NamedTuple

import httpx


class Proxy(NamedTuple):
    """A proxy, and the environment variable that names it."""

    variable: str
    url: str


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, seen from itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_proxy(url: str) -> Proxy | None:
    """Finds the proxy for `url`; None if there is none, if NO_PROXY exempts the server, or if it is on this machine."""
    target, settings = httpx.URL(url), urllib.request.getproxies()
    scheme = next((scheme for scheme in (target.scheme, "all") if settings.get(scheme)), None)
    port = target.port or {"http": 80, "https": 443}[target.scheme]
    exempt = (_exempts_server(entry.strip().lower(), target.host, port) for entry in settings.get("no", "").split(","))
    if scheme is None or is_loopback(target.host) or any(exempt):
        return None
    address = settings[scheme]
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())  # if both are set, the lower-case one counts
    variable = next((name for name in names if os.environ.get(name)), f"the system's {scheme} proxy")
    return Proxy(variable, address if "://" in address else f"http://{address}")


def make_transport(proxy: Proxy, **options) -> httpx.AsyncHTTPTransport:
    """Makes a transport through `proxy`, with the `options` of httpx.

    Raises ValueError, naming the variable, if it holds no proxy. What it holds is not shown: it may contain a password.
    """
    try:
        url = httpx.URL(proxy.url)
        if not url.host or not (url.port is None or 0 < url.port < 2**16):
            raise ValueError
        return httpx.AsyncHTTPTransport(proxy=httpx.Proxy(url), **options)
    except ImportError:
        raise ValueError(f"{proxy.variable}: a SOCKS proxy needs another package: pip install 'httpx[socks]'") from None
    except (ValueError, httpx.InvalidURL):
        raise ValueError(
            f"{proxy.variable}: expected http(s)://host:port of a proxy, got something else; "
            "correct it, unset it, or name the server in NO_PROXY"
        ) from None


def _exempts_server(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY names a server: *, a name, domain, address or network, with or without a port."""
    if entry.count(":") == 1 or "]:" in entry:
        entry, _, wanted = entry.rpartition(":")
        if wanted != str(port):
            return False
    entry = entry.strip("[]")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        domain = entry.removeprefix("*").lstrip(".")
        return entry == "*" or bool(domain) and (host == domain or host.endswith(f".{domain}"))
