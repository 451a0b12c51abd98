"""Which addresses a name may lead to. Runs in the sidecar: the standard library only.

Own tables, because `is_global` of Python says something else with every release.
"""

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NOT_PUBLIC_4 = [
    ipaddress.ip_network(n)
    for n in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
# Everything else of IPv6 is local, multicast, mapped or embedded IPv4 (::ffff:0:0/96, 64:ff9b::/96), or not given out.
_PUBLIC_6 = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC_6 = [
    # Teredo and other special purposes, documentation, 6to4, documentation.
    ipaddress.ip_network(n)
    for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_METADATA = ("169.254.169.254", "fd00:ec2::254")


def is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


class Addresses:
    """`private`: networks that may be reached although they are not public. `denied`: the host's own addresses.

    The host itself and metadata services only when `private` has that very address, not a network around it.
    """

    def __init__(self, private: Iterable[str], denied: Iterable[str]) -> None:
        self._private = [ipaddress.ip_network(text, strict=False) for text in private]
        self._denied = {ipaddress.ip_address(text) for text in (*denied, *_METADATA)}

    def why_not(self, text: str) -> str:
        """Empty when it may be connected to."""
        address = ipaddress.ip_address(text.partition("%")[0])
        holding = [n for n in self._private if address in n]
        if any(n.prefixlen == n.max_prefixlen for n in holding):
            return ""
        if address in self._denied:
            return f"leads to {address}, which is this machine's own"
        return "" if holding or is_public(address) else f"leads to {address}, which is not public"
