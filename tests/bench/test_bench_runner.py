"""Peers that misbehave, turns, and every work once with the real peer of ours.

Comes in: scripted peers, interop/python. Goes out: claims about failures, order and the names of figures.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.source
runner = pytest.importorskip("runner", reason="bench/ is not there")

from rich.console import Console  # noqa: E402

import peers  # noqa: E402
import rows  # noqa: E402
import works  # noqa: E402
from results import Results  # noqa: E402

Scripted = Callable[[str], tuple[str, ...]]
NOWHERE = peers.Cores(None, None)
SMALL = {
    "DELAYED_BYTES": 1 << 20,
    "IDLE_FROM": 2,
    "IDLE_TO": 4,
    "IDLE_WATCH_S": 0.01,
    "FIRST_BYTES": 1,
    "DELAY_MS": 1.0,
    "STRANGERS": 256,
    "BUSY_CONNS": 8,
    "BUSY_MESSAGES": 6400,
    "PEERS_FROM": 2,
    "PEERS_TO": 4,
    "FLOOD_PER_S": 20,
    "FLOOD_S": 1,
    "FLOOD_START_S": 0.1,
    "HONEST_PINGS": 5,
    "BROADCAST_CONNS": 16,
    "BROADCAST_MESSAGES": 2,
}


def rig(**commands: tuple[str, ...]) -> Any:
    """A rig of unpinned peers."""
    return works.Rig({name: peers.Peer(name, command) for name, command in commands.items()}, NOWHERE)


def results(rounds: int = 1) -> Results:
    return Results("now", rounds, "abc", {}, {})


# -- peers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["fail('no such security: tls')", "say('hello')", "sys.exit(0)"])
def test_a_peer_that_does_not_listen_is_a_failure(scripted: Scripted, body: str) -> None:
    with pytest.raises(peers.PeerFailure, match="did not listen"):
        rig(one=scripted(body)).listener("one")


def test_the_last_words_of_a_peer_are_told(scripted: Scripted) -> None:
    with pytest.raises(peers.PeerFailure, match="conn failed: ERROR out of luck"):
        rig(one=scripted("say('{}'); fail('out of luck')")).dial("one", "conn", "/ip4/127.0.0.1/tcp/1")


def test_a_dialer_that_says_nothing_is_a_failure(scripted: Scripted) -> None:
    with pytest.raises(peers.PeerFailure, match="conn failed"):
        rig(one=scripted("")).dial("one", "conn", "/ip4/127.0.0.1/tcp/1")


def test_silence_has_an_end(scripted: Scripted) -> None:
    with (
        peers.Process((*scripted("sys.stdin.read()"), "x")) as process,
        pytest.raises(peers.PeerFailure, match="nothing"),
    ):
        process.line(0.01)


@pytest.mark.parametrize("line", ["nonsense", "[1]", "7"])
def test_an_answer_that_is_no_object_is_a_failure(scripted: Scripted, line: str) -> None:
    with (
        peers.Process((*scripted(f"say({line!r}); sys.stdin.read()"), "x")) as process,
        pytest.raises(peers.PeerFailure, match="instead of a JSON object"),
    ):
        process.answer(30.0)


def test_an_address_leads_through_a_proxy(scripted: Scripted) -> None:
    with rig(one=scripted("listen()")).listener("one") as listener:
        assert listener.port == 1234
        assert listener.through(99) == "/ip4/127.0.0.1/tcp/99/p2p/Q"


def test_a_listener_settles_with_the_connections_asked_for(scripted: Scripted) -> None:
    with rig(one=scripted("listen()")).listener("one") as listener:
        assert listener.settled(3)["conns"] == 3


def test_a_dialer_that_holds_too_few_is_a_failure(scripted: Scripted) -> None:
    peer = peers.Peer("one", scripted("say('HELD 3')"))
    with pytest.raises(peers.PeerFailure, match="instead of 4"):
        peers.Held(peer, None, "/ip4/127.0.0.1/tcp/1", 4)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin")
def test_a_pinned_process_has_one_core_and_we_keep_ours() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with peers.Process((sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"), core) as process:
        assert process.line(30.0) == f"{ {core} }\n"
    assert os.sched_getaffinity(0) == before


# -- rounds ----------------------------------------------------------------------------------------


def nothing(rig: Any, name: str) -> dict[str, float]:
    return {"x": 1.0}


def test_who_goes_first_moves_on_from_round_to_round() -> None:
    three = rig(a=("a",), b=("b",), c=("c",))
    order = [turn.contender for turn in runner.turns([works.Work("w", nothing)], three, 3, {})]
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_absent_contenders_and_works_without_what_they_need_have_no_turn() -> None:
    todo = [works.Work("w", nothing), works.Work("needy", nothing, needs=("go",))]
    found = list(runner.turns(todo, rig(a=("a",), b=("b",)), 1, {"w": {"a": "why"}}))
    assert [(turn.work.name, turn.contender) for turn in found] == [("w", "b")]


def test_a_peer_that_refuses_the_options_is_absent(scripted: Scripted) -> None:
    refuses = scripted("listen() if '-sec' not in arguments else fail('no such security: tls')")
    todo = [works.Work("w", nothing, options=("-sec", "tls")), works.Work("plain", nothing)]
    absent = runner.find_absent(todo, rig(a=refuses, b=scripted("listen()")))
    assert list(absent) == ["w"]
    assert list(absent["w"]) == ["a"]
    assert "no such security" in absent["w"]["a"]


def test_a_failing_contender_is_noted_and_given_up_and_the_others_go_on() -> None:
    def measure(rig: Any, name: str) -> dict[str, float]:
        if name == "bad":
            raise peers.PeerFailure("broken")
        return {"x": 1.0}

    found = results(rounds=5)
    runner.run((works.Work("w", measure),), rig(good=("x",), bad=("x",)), found, Console(file=io.StringIO()))
    assert len(found.samples["w"]["good"]) == 5
    assert "bad" not in found.samples["w"]
    failure = {"work": "w", "contender": "bad", "what": "broken"}
    assert found.failures == [failure] * runner.MAX_FAILURES


# -- the works -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "work", [work for work in works.WORKS if not work.options], ids=lambda work: work.name
)
def test_a_work_gives_the_figures_of_its_rows(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(works, name, value)
    script = peers.ROOT / "interop" / "python" / "peer.py"
    ours = (sys.executable, str(script))
    both = {name: peers.Peer(name, ours) for name in ("python", "go")}
    figures = work.measure(works.Rig(both, NOWHERE, {"python": 1 / 64}), "python")
    wanted = {row.figure for row in rows.ROWS if row.work == work.name}
    assert wanted <= set(figures)
    if work.name == "first_byte":
        assert figures["round_trips"] >= 3


@pytest.fixture(scope="module")
def bare() -> Any:
    """A rig of the limit alone."""
    import limit

    command, reason = limit.build()
    if not command:
        pytest.skip(f"the limit cannot be built: {reason}")
    return works.Rig({rows.LIMIT: peers.Peer(rows.LIMIT, command)}, NOWHERE, {rows.LIMIT: 1 / 64})


@pytest.mark.slow
@pytest.mark.parametrize("work", [work for work in works.WORKS if work.has_limit], ids=lambda work: work.name)
def test_the_limit_does_the_works_that_it_takes_part_in(
    work: Any, bare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(works, name, value)
    figures = work.measure(bare, rows.LIMIT)
    assert {row.figure for row in rows.ROWS if row.work == work.name} <= set(figures)


def test_the_limit_lacks_what_a_library_has(bare: Any) -> None:
    with pytest.raises(peers.PeerFailure, match="ERROR -addr"):
        bare.listener(rows.LIMIT, *works.WEBSOCKET)


def test_the_limit_takes_part_only_where_it_can(scripted: Scripted) -> None:
    both = rig(python=("a",), limit=("b",))
    todo = [works.Work("w", nothing), works.Work("bulk", nothing, has_limit=True)]
    found = [(turn.work.name, turn.contender) for turn in runner.turns(todo, both, 1, {})]
    assert found == [("w", "python"), ("bulk", "python"), ("bulk", "limit")]


def test_work_that_was_only_half_done_is_a_failure() -> None:
    with pytest.raises(peers.PeerFailure, match="3 of 4"):
        works._check_all({"n": 3}, 4)


def test_the_shown_imports_are_the_longest_first() -> None:
    shown = runner.import_times()
    own = [float(line.split(" ms ")[0]) for line in shown]
    assert len(shown) == runner.IMPORTS_SHOWN
    assert own == sorted(own, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--with", "python", "--peer", "zig"], "NAME=COMMAND"),
        (["--with", "nobody"], "no such peer: nobody"),
        (["--only", "sleep"], "no such work: sleep"),
        (["--rounds", "0"], "rounds"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(arguments: list[str], told: str) -> None:
    pytest.importorskip("matplotlib", reason="only make bench has it")
    from click.testing import CliRunner

    import sidebyside

    said = CliRunner().invoke(sidebyside.main, [*arguments, "--only", "up"])
    assert said.exit_code == 2
    assert told in said.output


def test_a_peer_that_does_not_build_keeps_no_other_away() -> None:
    pytest.importorskip("matplotlib", reason="only make bench has it")
    import sidebyside

    class Builder:
        """A builder whose peers do not build."""

        class BuildError(RuntimeError):
            """As interop/build.py has it."""

        @staticmethod
        def build(name: str) -> None:
            raise Builder.BuildError("syntax error")

    assert sidebyside._build(Builder, "rust") == ((), "syntax error")  # type: ignore[arg-type]
