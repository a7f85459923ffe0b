"""Which proxy leads to LiveKit: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, as other programs read them.

aiohttp would read them too, but not for wss, and a login from ~/.netrc with them. The worker's own connection, which
ends at loopback, never goes through a proxy.
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
    """The url of the proxy for an http or https url; None for a direct connection, as to this machine itself.

    Raises ConfigError for a kind of proxy that can't be used. A message never holds the proxy's url, which may have a
    password in it.
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
            f"{parts.scheme.upper()}_PROXY or ALL_PROXY names a proxy of the kind {kind!r}: only http and https work "
            "here. Name such a proxy, or LiveKit's host in NO_PROXY"
        )
    return proxy


def bypassing_proxy(environment: Mapping[str, str], host: str) -> dict[str, str]:
    """The variables that keep a worker's connection to `host` out of a proxy that its environment names."""
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
