"""Host names in addresses: what they lead to, whatever the answers are like."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from dns_server import dns_server
from harness import looped, run
from p2pcore import DialOptions, Host, limits
from p2pcore.dialing.dns import DnsResolver, SystemResolver, needs_resolving, resolve
from p2pcore.errors import AddressError, ResolutionError
from p2pcore.interfaces import Resolver
from p2pcore.values.multiaddr import Multiaddr
from swarm_fakes import peer
from virtual_time import now, run_virtual

ONE, TWO = peer(1), peer(2)


class FakeResolver:
    """Answers from two tables; counts what it is asked."""

    def __init__(
        self,
        addresses: Mapping[tuple[str, int], list[str]] | None = None,
        texts: Mapping[str, list[str]] | None = None,
    ) -> None:
        self._addresses = addresses or {}
        self._texts = texts or {}
        self.asked: list[str] = []

    async def addresses(self, name: str, version: int) -> list[str]:
        self.asked.append(name)
        if (name, version) not in self._addresses:
            raise ResolutionError(f"{name}: no such name")
        return self._addresses[name, version]

    async def texts(self, name: str) -> list[str]:
        self.asked.append(name)
        if name not in self._texts:
            raise ResolutionError(f"{name}: no such name")
        return self._texts[name]


def resolved(addr: str, resolver: Resolver) -> list[str]:
    return [str(each) for each in run(resolve(Multiaddr(addr), resolver))]


HOSTS = FakeResolver({("a.example", 4): ["1.2.3.4", "1.2.3.5"], ("a.example", 6): ["2001:db8::1"]})


@pytest.mark.parametrize(
    ("addr", "expected"),
    [
        ("/dns4/a.example/tcp/1", ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.5/tcp/1"]),
        ("/dns6/a.example/tcp/1", ["/ip6/2001:db8::1/tcp/1"]),
        (
            "/dns/a.example/tcp/1",
            ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.5/tcp/1", "/ip6/2001:db8::1/tcp/1"],
        ),
        ("/dns6/a.example", ["/ip6/2001:db8::1"]),
        (f"/dns6/a.example/tcp/1/p2p/{ONE}", [f"/ip6/2001:db8::1/tcp/1/p2p/{ONE}"]),
        ("/ip4/9.9.9.9/tcp/1", ["/ip4/9.9.9.9/tcp/1"]),
    ],
)
def test_a_name_is_replaced_by_each_of_its_addresses(addr: str, expected: list[str]) -> None:
    assert resolved(addr, HOSTS) == expected


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("/tcp/443/tls/ws", "/tcp/443/tls/sni/a.example/ws"),
        ("/tcp/443/wss", "/tcp/443/tls/sni/a.example/ws"),
        (f"/tcp/443/wss/p2p/{ONE}", f"/tcp/443/tls/sni/a.example/ws/p2p/{ONE}"),
        (f"/tcp/443/tls/ws/p2p/{ONE}/p2p-circuit", f"/tcp/443/tls/sni/a.example/ws/p2p/{ONE}/p2p-circuit"),
        ("/tcp/443/tls/sni/b.example/ws", "/tcp/443/tls/sni/b.example/ws"),
        ("/tcp/80/ws", "/tcp/80/sni/a.example/ws"),
        (f"/tcp/80/ws/http-path/x/p2p/{ONE}", f"/tcp/80/sni/a.example/ws/http-path/x/p2p/{ONE}"),
        ("/tcp/443/tls", "/tcp/443/tls"),
        (
            f"/tcp/1/p2p/{ONE}/p2p-circuit/dns4/b.example/tcp/443/tls/ws",
            f"/tcp/1/p2p/{ONE}/p2p-circuit/dns4/b.example/tcp/443/tls/ws",
        ),
    ],
)
def test_websocket_keeps_the_name(rest: str, expected: str) -> None:
    assert resolved(f"/dns6/a.example{rest}", HOSTS) == [f"/ip6/2001:db8::1{expected}"]


@pytest.mark.parametrize(
    ("name", "asked", "kept"),
    [
        ("A.Example", "a.example", "a.example"),
        ("a.example.", "a.example.", "a.example"),
        ("Bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("bücher。example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_dns_is_asked_for_the_normal_form_of_a_name(name: str, asked: str, kept: str) -> None:
    resolver = FakeResolver({(asked, 4): ["1.2.3.4"]})
    assert resolved(f"/dns4/{name}/tcp/80/ws", resolver) == [f"/ip4/1.2.3.4/tcp/80/sni/{kept}/ws"]
    texts = FakeResolver({}, {f"_dnsaddr.{asked}": ["dnsaddr=/ip4/1.2.3.4/tcp/1"]})
    assert resolved(f"/dnsaddr/{name}", texts) == ["/ip4/1.2.3.4/tcp/1"]


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", "ü" * 70 + ".example", "a b", "a:b@c%d"])
def test_what_is_no_host_name_is_never_asked_for(name: str) -> None:
    resolver = FakeResolver({})
    with pytest.raises(ResolutionError, match=r"not a host name|no such name"):
        resolved(f"/dns4/{name}/tcp/80/ws", resolver)


def test_a_name_that_somebody_else_looks_up_is_kept_wherever_it_turns_up() -> None:
    kept = "/dns4/b.example/tcp/80/ws"
    resolver = FakeResolver(
        {("a.example", 4): ["1.2.3.4"]},
        {"_dnsaddr.c.example": [f"dnsaddr={kept}", "dnsaddr=/dns4/a.example/tcp/1"]},
    )
    found = run(resolve(Multiaddr("/dnsaddr/c.example"), resolver, lambda addr: "ws" in addr))
    assert [str(each) for each in found] == [kept, "/ip4/1.2.3.4/tcp/1"]
    assert "b.example" not in resolver.asked


def dnsaddr(**names: list[str]) -> FakeResolver:
    texts = {f"_dnsaddr.{name}": [f"dnsaddr={addr}" for addr in addrs] for name, addrs in names.items()}
    return FakeResolver({("a.example", 4): ["1.2.3.4"]}, texts)


def test_a_dnsaddr_leads_to_the_addresses_of_its_text_records() -> None:
    records = dnsaddr(x=[f"/ip4/1.1.1.1/tcp/1/p2p/{ONE}", f"/dns4/a.example/tcp/2/p2p/{TWO}"])
    assert resolved("/dnsaddr/x", records) == [
        f"/ip4/1.1.1.1/tcp/1/p2p/{ONE}",
        f"/ip4/1.2.3.4/tcp/2/p2p/{TWO}",
    ]


def test_a_dnsaddr_gives_only_what_ends_with_the_peer_asked_for() -> None:
    records = dnsaddr(
        x=[f"/ip4/1.1.1.1/tcp/1/p2p/{ONE}", f"/ip4/1.1.1.1/tcp/2/p2p/{TWO}", "/ip4/1.1.1.1/tcp/3"]
    )
    assert resolved(f"/dnsaddr/x/p2p/{TWO}", records) == [f"/ip4/1.1.1.1/tcp/2/p2p/{TWO}"]


def test_a_dnsaddr_may_lead_to_another_four_times() -> None:
    names = {f"n{n}": [f"/dnsaddr/n{n + 1}"] for n in range(1, 6)}
    chain = dnsaddr(**names | {"n4": ["/ip4/4.4.4.4/tcp/1"]})
    assert resolved("/dnsaddr/n1", chain) == ["/ip4/4.4.4.4/tcp/1"]
    longer = dnsaddr(**names | {"n5": ["/ip4/5.5.5.5/tcp/1"]})
    with pytest.raises(ResolutionError):
        resolved("/dnsaddr/n1", longer)
    assert longer.asked == [f"_dnsaddr.n{n}" for n in range(1, 5)]


def test_a_circle_of_names_ends() -> None:
    records = dnsaddr(x=["/dnsaddr/y"], y=["/dnsaddr/x"])
    with pytest.raises(ResolutionError, match="no usable answer"):
        resolved("/dnsaddr/x", records)
    assert len(records.asked) == limits.MAX_DNSADDR_DEPTH


def test_names_that_multiply_are_asked_for_a_bounded_number_of_times() -> None:
    many = {f"n{n}": [f"/dnsaddr/n{m}" for m in range(200)] for n in range(200)}
    records = dnsaddr(**many)
    with pytest.raises(ResolutionError):
        resolved("/dnsaddr/n0", records)
    assert len(records.asked) <= limits.MAX_DNS_QUERIES


def test_more_answers_than_the_bound_are_cut() -> None:
    resolver = FakeResolver({("a.example", 4): [f"10.0.{n >> 8}.{n & 255}" for n in range(5000)]})
    assert len(resolved("/dns4/a.example/tcp/1", resolver)) == limits.MAX_RESOLVED_ADDRS
    records = dnsaddr(x=[f"/ip4/10.0.{n >> 8}.{n & 255}/tcp/1" for n in range(5000)])
    assert len(resolved("/dnsaddr/x", records)) == limits.MAX_RESOLVED_ADDRS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dnsaddr=",
        "dnsaddr=nonsense",
        "dnsaddr=/ip4/1.2.3/tcp/1",
        "v=spf1",
        "dnsaddr=/ip4/1.1.1.1/p2p/xyz",
    ],
)
def test_a_malformed_record_is_left_out(text: str) -> None:
    resolver = FakeResolver(
        texts={"_dnsaddr.x": [text, "dnsaddr=/ip4/1.1.1.1/tcp/1", "dnsaddr=" + "/ws" * 4000]}
    )
    assert resolved("/dnsaddr/x", resolver) == ["/ip4/1.1.1.1/tcp/1"]


@given(st.lists(st.text(max_size=60)), st.lists(st.text(max_size=20)))
@settings(max_examples=25, deadline=None)
def test_whatever_is_answered_there_is_a_result_or_a_resolution_error(
    texts: list[str], addresses: list[str]
) -> None:
    resolver = FakeResolver(
        {("a.example", 4): addresses},
        {"_dnsaddr.x": [*texts, *("dnsaddr=" + text for text in texts), "dnsaddr=/dns4/a.example/tcp/1"]},
    )
    try:
        assert all(not needs_resolving(each) for each in run(resolve(Multiaddr("/dnsaddr/x"), resolver)))
    except ResolutionError:
        pass


def test_a_name_without_addresses_is_an_error_that_says_why() -> None:
    with pytest.raises(ResolutionError, match=r"cannot resolve /dns/nowhere/tcp/1: nowhere: no such name"):
        resolved("/dns/nowhere/tcp/1", FakeResolver())


def test_one_family_is_enough_where_both_are_asked_for() -> None:
    resolver = FakeResolver({("a.example", 4): ["1.2.3.4"]})
    assert resolved("/dns/a.example/tcp/1", resolver) == ["/ip4/1.2.3.4/tcp/1"]


def test_a_resolver_that_does_not_answer_is_given_up_in_time() -> None:
    class Mute(FakeResolver):
        async def texts(self, name: str) -> list[str]:
            await asyncio.Event().wait()
            raise AssertionError

    async def main() -> float:
        with pytest.raises(ResolutionError, match="no answer in 10 s"):
            async with asyncio.timeout(1000):
                await resolve(Multiaddr("/dnsaddr/x"), Mute())
        return now()

    assert run_virtual(main()) == limits.DNS_TIMEOUT_S


def test_a_resolver_that_raises_anything_fails_to_resolve() -> None:
    class Faulty(FakeResolver):
        async def texts(self, name: str) -> list[str]:
            raise RuntimeError("a bug")

    with pytest.raises(ResolutionError, match="a bug"):
        resolved("/dnsaddr/x", Faulty())


# -- the resolvers there are -------------------------------------------------------------------


def test_the_system_resolves_names_by_itself() -> None:
    assert "/ip4/127.0.0.1/tcp/1" in resolved("/dns4/localhost/tcp/1", SystemResolver())
    with pytest.raises(ResolutionError, match=r"nowhere\.invalid"):
        resolved("/dns4/nowhere.invalid/tcp/1", SystemResolver())


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example"])
def test_a_name_no_dns_can_hold_is_a_resolution_error(name: str) -> None:
    for resolver in (SystemResolver(), DnsResolver(["127.0.0.1"], 1)):
        with pytest.raises(ResolutionError):
            run(resolver.addresses(name, 4))


RECORDS = {
    ("a.example", "A"): ["1.2.3.4", "1.2.3.5"],
    ("a.example", "AAAA"): ["2001:db8::1"],
    ("_dnsaddr.x.example", "TXT"): [
        f'"dnsaddr=/dns/a.example/tcp/1/p2p/{ONE}"',
        f'"dnsaddr=/ip4/9.9.9.9" "/tcp/2/p2p/{TWO}"',
        '"something else"',
    ],
}


@looped
async def test_a_dns_server_is_asked_over_the_network() -> None:
    async with dns_server(RECORDS) as port:
        resolver = DnsResolver(["127.0.0.1"], port)
        found = await resolve(Multiaddr("/dnsaddr/x.example"), resolver)
        assert sorted(map(str, found)) == sorted(
            [
                f"/ip4/1.2.3.4/tcp/1/p2p/{ONE}",
                f"/ip4/1.2.3.5/tcp/1/p2p/{ONE}",
                f"/ip6/2001:db8::1/tcp/1/p2p/{ONE}",
                f"/ip4/9.9.9.9/tcp/2/p2p/{TWO}",
            ]
        )
        with pytest.raises(ResolutionError, match="does not exist"):
            await resolve(Multiaddr("/dns4/nowhere.example/tcp/1"), resolver)


@looped
async def test_a_dns_server_that_is_mute_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DNS_TIMEOUT_S", 0.05)

    async with dns_server({}, is_mute=True) as port:
        with pytest.raises(ResolutionError):
            await resolve(Multiaddr("/dns4/a.example/tcp/1"), DnsResolver(["127.0.0.1"], port))


def test_without_dnspython_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("dns."):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResolutionError, match=r"p2pcore\[dns\]"):
        resolved("/dnsaddr/x", SystemResolver())


# -- a host ------------------------------------------------------------------------------------


@looped
async def test_a_host_connects_to_names_and_to_whatever_a_dnsaddr_leads_to() -> None:
    async with Host(ping=False) as server:
        port = server.addrs[0]["tcp"]
        resolver = FakeResolver(
            {("node.example", 4): ["127.0.0.1"]},
            {"_dnsaddr.example": [f"dnsaddr=/dns4/node.example/tcp/{port}/p2p/{server.peer_id}"]},
        )
        for target in (
            f"/dns4/node.example/tcp/{port}/p2p/{server.peer_id}",
            f"/dns4/node.example/tcp/{port}",
            f"/dnsaddr/example/p2p/{server.peer_id}",
            "/dnsaddr/example",
        ):
            async with Host(listen=(), dial=DialOptions(resolver=resolver)) as dialer:
                conn = await dialer.connect(target)
                assert conn.remote_peer == server.peer_id
                assert str(conn.remote_multiaddr) == f"/ip4/127.0.0.1/tcp/{port}"


@looped
async def test_listening_on_a_name_is_refused_clearly() -> None:
    async with Host(listen=()) as host:
        with pytest.raises(AddressError, match="not a host name"):
            await host.swarm.add_listen_addr("/dns4/localhost/tcp/0")
