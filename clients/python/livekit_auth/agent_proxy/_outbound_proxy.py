"""The HTTP proxy to LiveKit, from HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

aiohttp reads these too, but not for wss, and would also read a login from ~/.netrc. The worker's own connection, to
loopback, never uses a proxy.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from livekit_auth._messages.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("http_proxy", "https_proxy", "all_proxy")


def proxy_for(url: str) -> str | None:
    """The URL of the proxy for an http or https URL; None for a direct connection, as to this machine.

    Raises ConfigError for an unsupported kind of proxy. Messages never contain the proxy's URL, which may contain a
    password.
    """
    parts = urlsplit(url)
    if _is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if (kind := urlsplit(proxy).scheme) not in {"http", "https"}:
        raise ConfigError(
            f"{parts.scheme.upper()}_PROXY or ALL_PROXY names a {kind!r} proxy: only http and https are "
            "supported. Use such a proxy, or add LiveKit's host to NO_PROXY"
        )
    return proxy


def bypassing_proxy(environment: Mapping[str, str], host: str) -> dict[str, str]:
    """The variables that make the worker connect to `host` directly if its environment names a proxy."""
    if not any(name.lower() in NAMES for name in environment):
        return {}
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if listed.strip() == "*":
        return {}
    both = f"{listed},{host}" if listed else host
    return {"no_proxy": both, "NO_PROXY": both}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
