"""Turns /dns, /dns4, /dns6 and /dnsaddr addresses into numeric ones.

Comes in: a multiaddr, and a Resolver that asks. Goes out: multiaddrs with /ip4 or /ip6. Answers may be
hostile: their number, their depth and the total time are bounded. Malformed parts are left out. If WebSocket
follows the name, the name stays in the address as /sni/NAME. Source: multiformats/multiaddr, protocols
DNSADDR; go-multiaddr-dns.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from p2pcore import limits
from p2pcore.errors import AddressError, IdentityError, LimitExceeded, ResolutionError
from p2pcore.values.host_name import normal_host
from p2pcore.values.multiaddr import Multiaddr, protocol_with_name

if TYPE_CHECKING:
    from p2pcore.interfaces import Resolver

FAMILIES = {"dns": (4, 6), "dns4": (4,), "dns6": (6,)}
"""The IP versions that each protocol stands for."""
_NAMES = frozenset(protocol_with_name(name).vcode for name in (*FAMILIES, "dnsaddr"))
"""The codes of the host name protocols. Each code is one byte."""
_RECORD_TYPES = {4: "A", 6: "AAAA"}
_SOCKET_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_PREFIX = "dnsaddr="


def needs_resolving(addr: Multiaddr) -> bool:
    """True if `addr` begins with a host name."""
    return addr.to_bytes()[:1] in _NAMES


def _nothing_is_kept(addr: Multiaddr) -> bool:
    return False


async def resolve(
    addr: Multiaddr, resolver: Resolver, is_kept: Callable[[Multiaddr], bool] = _nothing_is_kept
) -> list[Multiaddr]:
    """The numeric addresses of `addr`, in the order of the answers, at most MAX_RESOLVED_ADDRS.

    From the answers for a /dnsaddr we take only addresses that end with the rest of `addr` after the name.
    That rest is usually the peer's id.

    Args:
        is_kept: whether a proxy looks up the host name of an address. Never called for /dnsaddr.

    Raises:
        ResolutionError: there are no numeric addresses. The text says why.
    """
    search = _Search(resolver, is_kept)
    try:
        async with asyncio.timeout(limits.DNS_TIMEOUT_S):
            return await search.run(addr)
    except TimeoutError:
        raise ResolutionError(f"cannot resolve {addr}: no answer in {limits.DNS_TIMEOUT_S:g} s") from None


class _Search:
    """Resolves one address, and counts its queries."""

    def __init__(self, resolver: Resolver, is_kept: Callable[[Multiaddr], bool]) -> None:
        self._resolver = resolver
        self._is_kept = is_kept
        self._num_queries = 0
        self._failures: list[Exception] = []

    async def run(self, addr: Multiaddr) -> list[Multiaddr]:
        found: dict[Multiaddr, None] = {addr: None}
        for _ in range(limits.MAX_DNSADDR_DEPTH):
            found = await self._step(found, is_dnsaddr=True)
        found = await self._step(found, is_dnsaddr=False)
        numeric = [each for each in found if not self._is_open(each)]
        if not numeric:
            why = "; ".join(str(failure) for failure in self._failures[:3]) or "no usable answer"
            raise ResolutionError(f"cannot resolve {addr}: {why}")
        return numeric[: limits.MAX_RESOLVED_ADDRS]

    def _is_open(self, addr: Multiaddr) -> bool:
        """Whether `addr` has a name that we must look up here."""
        return needs_resolving(addr) and ("dnsaddr" in _head(addr) or not self._is_kept(addr))

    async def _step(self, addrs: dict[Multiaddr, None], *, is_dnsaddr: bool) -> dict[Multiaddr, None]:
        """`addrs` with the answers in the place of each address of one kind. The result is bounded."""
        asked = [addr for addr in addrs if ("dnsaddr" in _head(addr)) is is_dnsaddr and self._is_open(addr)]
        if not asked:
            return addrs
        ask = self._dnsaddr if is_dnsaddr else self._host
        answers = dict(zip(asked, await asyncio.gather(*map(ask, asked)), strict=True))
        merged: dict[Multiaddr, None] = {}
        for addr in addrs:
            merged.update(dict.fromkeys(answers.get(addr, [addr])))
        return dict.fromkeys(list(merged)[: limits.MAX_RESOLVED_ADDRS])

    async def _dnsaddr(self, addr: Multiaddr) -> list[Multiaddr]:
        name, rest = _name_and_rest(addr)
        if (question := self._question(name)) is None:
            return []
        texts = await self._ask(self._resolver.texts, f"_dnsaddr.{question}")
        return [found for found in _addresses_in(texts) if rest is None or found.ends_with(rest)]

    async def _host(self, addr: Multiaddr) -> list[Multiaddr]:
        name, rest = _name_and_rest(addr)
        if (question := self._question(name)) is None:
            return []
        versions = FAMILIES[_head(addr).protocols()[0].name]
        lists = await asyncio.gather(*(self._ask(self._resolver.addresses, question, v) for v in versions))
        rest = rest if rest is None else _with_server_name(rest, name)
        return [found for texts in lists for text in texts for found in _numeric(text, rest)]

    def _question(self, name: str) -> str | None:
        """The name to ask DNS for: the normal form. A dot at the end stays: it turns search domains off."""
        try:
            return normal_host(name) + ("." if name.endswith(".") else "")
        except AddressError as error:
            self._failures.append(error)
            return None

    async def _ask(self, question: Any, *args: object) -> Sequence[str]:
        """The answer, cut to its bound. Empty if the query failed or there were too many queries."""
        if self._num_queries >= limits.MAX_DNS_QUERIES:
            self._failures.append(
                LimitExceeded("MAX_DNS_QUERIES", self._num_queries + 1, limits.MAX_DNS_QUERIES)
            )
            return ()
        self._num_queries += 1
        try:
            answer: Sequence[str] = await question(*args)
        except Exception as error:  # the user's resolver may raise anything
            self._failures.append(error)
            return ()
        return answer[: limits.MAX_RESOLVED_ADDRS]


def _head(addr: Multiaddr) -> Multiaddr:
    return addr.split(1)[0]


def _name_and_rest(addr: Multiaddr) -> tuple[str, Multiaddr | None]:
    head, *rest = addr.split(1)
    return head.values()[0] or "", rest[0] if rest else None


def _addresses_in(texts: Sequence[str]) -> Iterator[Multiaddr]:
    for text in texts:
        if text.startswith(_PREFIX):
            try:
                yield Multiaddr(text.removeprefix(_PREFIX))
            except (AddressError, IdentityError, LimitExceeded):
                continue


def _numeric(text: str, rest: Multiaddr | None) -> Iterator[Multiaddr]:
    """The address in one answer, followed by `rest`. Yields nothing if the answer is malformed."""
    try:
        head = Multiaddr(f"/ip6/{text}" if ":" in text else f"/ip4/{text}")
        yield head if rest is None else head.encapsulate(rest)
    except (AddressError, LimitExceeded):
        return


def _with_server_name(rest: Multiaddr, name: str) -> Multiaddr:
    """`rest` with /sni/NAME (the normal form of `name`) in front of the WebSocket of that host."""
    parts = [str(part) for part in rest.split()]
    for at, part in enumerate(parts):
        if part == "/p2p-circuit" or part.startswith("/sni/"):  # another host follows, or there is a name
            break
        if part == "/wss":
            parts[at : at + 1] = ["/tls", f"/sni/{normal_host(name)}", "/ws"]
            return Multiaddr("".join(parts))
        if part == "/ws":
            parts.insert(at, f"/sni/{normal_host(name)}")
            return Multiaddr("".join(parts))
    return rest


class SystemResolver:
    """Asks the operating system: getaddrinfo(3), and for TXT records the servers of resolv.conf.

    Only /dnsaddr needs TXT records. They need dnspython: `pip install "p2pcore[dns]"`.
    """

    async def addresses(self, name: str, version: int) -> list[str]:
        """See interfaces.Resolver."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                name, None, family=_SOCKET_FAMILIES[version], type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ResolutionError(f"{name}: {reason}") from error
        return [str(sockaddr[0]) for *_, sockaddr in found]

    async def texts(self, name: str) -> list[str]:
        """See interfaces.Resolver."""
        return await DnsResolver().texts(name)


class DnsResolver:
    """Asks DNS servers itself, with dnspython.

    Args:
        servers: the IP addresses of the servers; None: the servers of resolv.conf.
        port: the UDP and TCP port of all servers.
    """

    def __init__(self, servers: Sequence[str] | None = None, port: int = 53) -> None:
        self._servers = servers
        self._port = port

    async def addresses(self, name: str, version: int) -> list[str]:
        """See interfaces.Resolver."""
        return [record.address for record in await self._query(name, _RECORD_TYPES[version])]

    async def texts(self, name: str) -> list[str]:
        """See interfaces.Resolver."""
        records = await self._query(name, "TXT")
        return [b"".join(record.strings).decode("utf-8", "replace") for record in records]

    async def _query(self, name: str, kind: str) -> list[Any]:
        try:
            import dns.asyncresolver
            import dns.exception
        except ImportError as error:
            raise ResolutionError(
                f'{name}: looking up {kind} records needs dnspython: pip install "p2pcore[dns]"'
            ) from error
        try:
            asker = dns.asyncresolver.Resolver(configure=self._servers is None)
            asker.port = self._port
            if self._servers is not None:
                asker.nameservers = list(self._servers)
            answer = await asker.resolve(name, kind, lifetime=limits.DNS_TIMEOUT_S, search=False)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise ResolutionError(f"{name}: {error or type(error).__name__}") from error
        return list(answer)
