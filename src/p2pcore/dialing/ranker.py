"""The order in which the addresses of a peer are dialled, and the pauses between them ("happy eyeballs").

Comes in: addresses worth a dial. Goes out: (seconds to wait, address), soonest first. Never looks at a clock:
if no address is being dialled, the caller starts the next ones at once. Source: go-libp2p's dial ranker, RFC
8305.

Private, public and relayed addresses form three groups, which are dialled side by side. In each group the
first IPv6 address starts first, then the first IPv4 address, then the others. TCP comes before WebSocket, and
low ports before high ports. Addresses that are not IP, not a host name and not on this machine (onion,
garlic) come last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.values.scope import LOCAL_TRANSPORTS, Scope, is_ip, is_local, scope_of

if TYPE_CHECKING:
    from p2pcore.values.multiaddr import Multiaddr

Ranked = list[tuple[float, "Multiaddr"]]


def rank(addrs: Iterable[Multiaddr]) -> Ranked:
    """`addrs`, each with the seconds it should wait, soonest first. Equal times keep their order."""
    private: list[Multiaddr] = []
    public: list[Multiaddr] = []
    relayed: list[Multiaddr] = []
    foreign: list[Multiaddr] = []
    for addr in addrs:
        if addr.is_relayed:
            relayed.append(addr)
        elif not (is_local(addr) or is_ip(addr)):
            foreign.append(addr)
        else:
            (public if scope_of(addr) is Scope.PUBLIC else private).append(addr)
    ranked = _group(private, limits.DIAL_DELAY_PRIVATE_S, limits.DIAL_DELAY_OTHER_PRIVATE_S)
    ranked += _group(public, limits.DIAL_DELAY_PUBLIC_S, limits.DIAL_DELAY_OTHER_PUBLIC_S)
    head_start = limits.DIAL_DELAY_RELAY_S if public else 0.0
    late = _group(relayed, limits.DIAL_DELAY_PUBLIC_S, limits.DIAL_DELAY_OTHER_PUBLIC_S)
    ranked += [(delay + head_start, addr) for delay, addr in late]
    last = max(map(_delay, ranked)) + limits.DIAL_DELAY_OTHER_PUBLIC_S if ranked else 0.0
    ranked += [(last, addr) for addr in foreign]
    return sorted(ranked, key=_delay)


def _delay(item: tuple[float, Multiaddr]) -> float:
    return item[0]


def _group(addrs: list[Multiaddr], step: float, others: float) -> Ranked:
    """Ranks one group: the best, after `step` the best of the other family, after `step` the others."""
    known = sorted((addr for addr in addrs if _is_known(addr)), key=_score)
    ranked: Ranked = []
    if known:
        first = known.pop(0)
        ranked.append((0.0, first))
        second = next((addr for addr in known if _is_ip6(first) and not _is_ip6(addr)), None)
        if second is not None:
            known.remove(second)
            ranked.append((step, second))
        ranked += [(step * len(ranked), addr) for addr in known]
    start = others if ranked else 0.0
    return ranked + [(start, addr) for addr in addrs if not _is_known(addr)]


def _is_known(addr: Multiaddr) -> bool:
    """True for addresses that are tried first: TCP, and addresses on this machine."""
    return "tcp" in addr or addr.protocols()[0].name in LOCAL_TRANSPORTS


def _is_ip6(addr: Multiaddr) -> bool:
    return "ip6" in addr


def _score(addr: Multiaddr) -> tuple[bool, bool, int]:
    """Smaller is sooner."""
    is_web = "ws" in addr or "wss" in addr
    return not _is_ip6(addr), is_web, int(addr.get("tcp") or 0)
