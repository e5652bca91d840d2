"""The known faults of go-libp2p's connection path, and the tests that show p2pcore does better.

Comes in: a table from the number of a fault to tests. Goes out: a failure where a test named here is gone.
What each fault is stands beside its number; a fault of a part p2pcore does not have is not in the table.
"""

from __future__ import annotations

import ast
import asyncio
import re
from functools import cache
from pathlib import Path
from typing import cast

import pytest

from harness import eventually, looped
from p2pcore import Host, ListenerOptions
from p2pcore.upgrade.listener import UpgradedListener
from p2pcore.values.multiaddr import Multiaddr

TESTS = Path(__file__).parent
LOOPBACK = Multiaddr("/ip4/127.0.0.1/tcp/0")

FAULTS: dict[str, tuple[str, ...]] = {
    # A listener dies of a non-temporary error, and nobody is told.
    "W1": (
        "upgrade/test_listener_survival.py::test_a_socket_shut_down_under_the_listener_is_replaced",
        "upgrade/test_listener_survival.py::test_a_lost_socket_is_bound_anew_however_often_that_fails",
        "swarm/test_swarm_listeners.py::test_a_listener_that_ends_by_itself_is_told_and_removed",
        "swarm/test_events.py::test_a_listeners_troubles_are_told",
    ),
    # The shared TCP port ends at the first EMFILE or ECONNABORTED.
    "W2": (
        "transports/tcp/test_shared.py::test_a_temporary_error_is_paused_over_by_every_listener_and_ends_none",
        "transports/tcp/test_shared.py::test_a_lost_socket_is_bound_anew_once_for_all_listeners",
        "upgrade/test_listener_survival.py::test_temporary_errors_are_paused_over_and_counted",
    ),
    # Pauses after errors stall the accept loop while connections wait without descriptors.
    "W3": (
        "manet/test_malistener.py::test_without_descriptors_each_accept_sheds_one_connection",
        "upgrade/test_listener_survival.py::test_a_storm_without_descriptors_ends_and_nothing_accepted_is_lost",
        "upgrade/test_listener_survival.py::test_close_ends_a_listener_that_is_pausing",
    ),
    # Handshakes under way are not bounded.
    "W4": (
        "upgrade/test_listener.py::test_when_all_upgrades_are_in_use_peers_stay_in_the_backlog",
        "upgrade/test_listener.py::test_peers_that_say_nothing_do_not_keep_others_out",
        "upgrade/test_listener.py::test_of_too_many_slow_handshakes_the_oldest_is_ended",
        "transports/tcp/test_shared.py::test_silent_peers_keep_nobody_out",
    ),
    # The length of the accept queue is a global variable.
    "W5": (
        "upgrade/test_listener.py::test_handshakes_that_end_in_a_burst_leave_the_next_peer_in_the_backlog",
        "test_faults.py::test_w5_two_hosts_of_a_process_have_accept_queues_of_their_own",
    ),
    # A connection that waits for the queue has no deadline.
    "W6": (
        "upgrade/test_listener.py::test_a_connection_held_back_has_the_same_deadline",
        "transports/tcp/test_shared.py::test_what_no_listener_takes_in_time_is_dropped",
    ),
    # "Listener closed" is recognised by its text.
    "W7": (
        "upgrade/test_listener.py::test_close_wakes_every_accept",
        "conformance/test_transports.py::test_accept_after_close_says_so_and_accepted_connections_live_on",
    ),
    # A forced private network without a key, or an address that cannot be said, leaks the descriptor.
    "W8": (
        "test_private_network.py::test_w8_a_host_that_must_be_private_is_not_made_without_a_key",
        "manet/test_malistener.py"
        "::test_an_end_that_no_multiaddr_can_say_costs_one_connection_and_no_descriptor",
        "upgrade/test_upgrader.py::test_a_dialler_that_goes_away_at_any_byte_leaves_nothing_behind",
    ),
    # A mute peer pins a plaintext handshake for ever, and the close of its listener too.
    "W9": (
        "security/test_plaintext.py::test_a_mute_peer_ends_by_the_deadline_and_does_not_hold_up_the_close",
    ),
    # Failed inbound upgrades are invisible.
    "W10": (
        "upgrade/test_listener.py::test_silent_peers_are_gone_after_the_accept_deadline",
        "swarm/test_events.py::test_failed_upgrades_are_told_on_both_sides_with_stage_and_addresses",
        "transports/tcp/test_shared.py::test_what_nobody_wants_is_closed_and_counted",
    ),
    # SO_REUSEPORT lets a second process share the port in silence.
    "W11": (
        "manet/test_malistener.py::test_a_bound_port_is_taken",
        "manet/test_reuseport.py::test_the_port_stays_ours_alone_and_is_free_at_the_end",
        "transports/test_unix.py::test_a_socket_that_is_in_use_is_taken_and_lives_on",
    ),
    # Listening on a shared port and closing it deadlock.
    "W12": ("transports/tcp/test_shared.py::test_listening_and_closing_at_once_never_deadlocks",),
    # The guard against unknown connections on a shared port never fires.
    "W13": (
        "transports/tcp/test_shared.py::test_three_bytes_tell_the_kind",
        "transports/tcp/test_shared.py::test_what_nobody_wants_is_closed_and_counted",
    ),
    # A connection of a shared port has a way round the bytes that were looked at.
    "W14": ("transports/tcp/test_shared.py::test_each_listener_gets_its_kind_and_every_byte_of_it",),
    # Of several listen addresses, the causes of those that fail are lost in a text.
    "W15": (
        "swarm/test_swarm_listeners.py::test_listen_gives_a_result_for_each_address_and_one_success_is_enough",
        "swarm/test_swarm_listeners.py::test_listen_fails_with_every_cause_when_no_address_works",
    ),
    # No shared port in a private network, no UNIX sockets.
    "W16": (
        "transports/tcp/test_ports.py::test_a_host_serves_tcp_ws_and_wss_on_one_port",
        "transports/test_unix.py::test_hosts_talk_over_a_path_that_names_the_peer",
    ),
    # Limits by IP address hold for private networks and for what we dial.
    "W17": ("swarm/test_admission.py::test_outbound_and_private_connections_do_not_count_for_their_address",),
    # Limits that are hit do not say which, or to whom.
    "W18": ("swarm/test_admission.py::test_a_peer_over_its_cap_is_told_with_the_code",),
    # Bounds of parts are greater than those of the whole, by slips of the pen.
    "W19": ("test_limits.py::test_a_part_is_bounded_by_no_more_than_the_whole",),
    # Limits are soft: there may be many more connections.
    "W20": (
        "swarm/test_admission.py::test_a_cap_is_hard_named_when_hit_and_free_again_when_a_connection_ends",
    ),
    # One stream that cannot be taken ends the session; one not opened keeps its slot.
    "W21": (
        "muxers/test_muxer_faults.py::test_w21_a_stream_that_cannot_be_taken_is_reset_alone",
        "muxers/test_muxer_faults.py::test_w21_streams_that_came_to_nothing_leave_no_slot",
    ),
    # Dials over a limit are refused rather than put in a line.
    "W23": ("dialing/test_dialer.py::test_at_most_max_dials_are_under_way_and_the_others_wait_in_line",),
    # The streams a peer may open are not bounded.
    "W24": (
        "muxers/test_muxer_faults.py::test_w24_a_peer_has_a_bound_on_open_streams_without_being_told_to",
    ),
    # Duplicate connections are kept, whatever happens.
    "W25": ("swarm/test_duplicates.py::test_two_hosts_that_dial_each_other_agree_on_one_connection",),
    # One connection cannot be closed alone.
    "W26": ("swarm/test_swarm_conns.py::test_one_connection_is_closed_by_its_id_and_no_other",),
    # A slow subscriber holds everything up.
    "W27": ("swarm/test_events.py::test_a_subscriber_that_never_reads_holds_nobody_up",),
    # Notifying and unsubscribing within a callback deadlock.
    "W28": ("swarm/test_swarm.py::test_notifiees_may_come_and_go_inside_a_callback",),
    # Closing hangs on a callback or a consumer.
    "W29": ("swarm/test_swarm.py::test_close_is_bounded_where_a_connection_does_not_end",),
    # Notifiees are called in random order.
    "W30": (
        "swarm/test_swarm.py::test_each_notifiee_hears_connected_then_disconnected_once_in_order_of_registration",
    ),
    # Ids of connections begin alike.
    "W31": ("swarm/test_swarm.py::test_connection_ids_end_like_the_peer_id_and_are_unique",),
    # New streams wait until the peer is identified.
    "W32": ("swarm/test_swarm.py::test_a_single_protocol_is_proposed_without_waiting",),
    # A connection that fails is not replaced by another one to the peer.
    "W33": ("swarm/test_swarm.py::test_a_stream_is_opened_on_the_next_connection_when_one_fails",),
    # What was written just before close is lost.
    "W34": (
        "manet/test_linger.py::test_a_slow_reader_gets_what_was_written_just_before_close",
        "conformance/test_transports.py::test_what_was_written_just_before_close_arrives",
    ),
    # Closing the read half says nothing, and the peer stands still.
    "W35": (
        "conformance/test_muxed_streams.py::test_a_closed_read_half_drops_what_comes_and_writing_goes_on",
        "conformance/test_muxed_streams.py::test_a_peer_that_goes_on_writing_to_a_closed_stream_is_told",
    ),
    # The ping server ends streams that are in use.
    "W36": ("protocols/test_ping.py::test_a_silent_stream_ends_and_a_busy_one_goes_on",),
    # Proposals of protocols are answered without end.
    "W37": ("upgrade/test_multistream.py::test_responder_ends_endless_proposals",),
    # A peer with too many protocols has none in the book.
    "W38": ("protocols/test_identify_message.py::test_bad_and_superfluous_protocols_are_skipped",),
    # One peer's success forgets the failures of all its addresses.
    "W39": ("dialing/test_dial_backoff.py::test_only_the_address_that_worked_is_cleared",),
    # Frames do not fit records, and small writes leave one by one.
    "W40": (
        "muxers/test_muxer_faults.py::test_w40_no_frame_spans_two_records_and_long_writes_fill_them",
        "muxers/test_muxer_faults.py::test_w40_small_writes_of_one_turn_leave_as_one_frame_in_one_record",
    ),
    # A window that drains slowly stays small, and two kinds of pings are sent.
    "W41": (
        "_fast/mux/test_yamux_windows.py::test_a_window_used_up_within_four_round_trips_doubles_up_to_the_maximum",
        "_fast/mux/test_yamux_windows.py::test_growth_stays_within_the_budget_and_what_ends_gives_back",
    ),
    # Of two transports that can dial an address, a random one does.
    "W42": (
        "swarm/test_swarm_listeners.py"
        "::test_dialling_prefers_proxies_for_their_addresses_and_then_the_order_of_registration",
    ),
    # Figures of all hosts of a process are mixed.
    "W43": ("swarm/test_events.py::test_each_host_counts_for_itself",),
    # A constructor by injection, whose errors name no argument.
    "W44": ("test_host.py::test_a_protocol_that_is_not_there_is_named",),
    # The state of a relayed connection hides its security and its muxer.
    "W45": (
        "relay/test_relay.py::test_a_node_behind_a_relay_is_reached_and_the_connection_says_how",
        "conformance/test_transports.py::test_both_ends_know_their_addresses_ids_and_protocols",
    ),
    # Another network key shows as rubbish in the negotiation.
    "W47": (
        "test_private_network.py::test_w47_another_key_is_named_as_the_reason",
        "test_private_network.py::test_w47_a_listener_counts_peers_with_another_key_by_that_reason",
    ),
    # The pause between dials is not the documented one.
    "W46": ("dialing/test_dial_ranker.py::test_addresses_are_spaced_by_group_family_and_transport",),
    # Addresses of interfaces are up to a minute old.
    "W48": ("swarm/test_events.py::test_addresses_that_change_under_a_wildcard_are_told",),
    # A clock can be put in a few places only.
    "W49": ("dialing/test_dialer.py::test_addresses_are_started_as_they_are_ranked",),
}
"""Number of the fault: tests, as paths below this folder."""


@looped
async def test_w5_two_hosts_of_a_process_have_accept_queues_of_their_own() -> None:
    async with Host(listen=()) as dialler:
        for length in (1, 3):
            host = Host(listener=ListenerOptions(queue_length=length))
            transport = host.swarm.transport_for_listening(LOOPBACK)
            assert transport is not None
            listener = cast("UpgradedListener", await transport.listen(LOOPBACK))
            for _ in range(length):
                await dialler.swarm.dial_addr(listener.multiaddr)
            await eventually(lambda: listener.num_ready == length)  # noqa: B023
            late = asyncio.ensure_future(dialler.swarm.dial_addr(listener.multiaddr))
            await eventually(lambda: listener.num_accepted == length + 1)  # noqa: B023
            assert listener.num_upgrading == 0
            for _ in range(length + 1):
                await listener.accept()
            await late
            await listener.close()
            await host.close()


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


@pytest.mark.source
@pytest.mark.parametrize("fault", FAULTS)
def test_the_tests_of_a_fault_are_there(fault: str) -> None:
    assert fault[0] == "W"
    assert 1 <= int(fault[1:]) <= 49
    assert FAULTS[fault]
    for test in FAULTS[fault]:
        path, _, name = test.partition("::")
        assert name.startswith("test_")
        assert name in names_in(path), f"{fault}: there is no {test}"


def cell(tests: tuple[str, ...]) -> str:
    """What docs/faults.md has in its last column: a link for each test."""
    parts = [test.partition("::") for test in tests]
    links = [f"[{name.removeprefix('test_').replace('_', ' ')}](../tests/{path})" for path, _, name in parts]
    return "<br>".join(links)


def rows_of_the_page() -> dict[str, list[str]]:
    """The table of docs/faults.md: number of the fault to its other cells."""
    text = (TESTS.parent / "docs" / "faults.md").read_text()
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| W")]
    return {row[0].strip(): [each.strip() for each in row[1:]] for row in rows}


@pytest.mark.source
def test_the_page_of_faults_has_each_with_its_tests_and_no_other() -> None:
    rows = rows_of_the_page()
    assert list(rows) == sorted(FAULTS, key=lambda fault: int(fault[1:]))
    for fault, (wrong, ours, tests) in rows.items():
        assert wrong, fault
        assert ours, fault
        assert tests == cell(FAULTS[fault]), fault


@pytest.mark.source
def test_every_fault_that_the_source_names_is_on_the_page() -> None:
    rows = rows_of_the_page()
    source = [
        path
        for folder in ("src", "tests", "docs")
        for path in (TESTS.parent / folder).rglob("*")
        if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".md")
    ]
    assert len(source) > 100
    named = {(path.name, fault) for path in source for fault in re.findall(r"\bW\d+\b", path.read_text())}
    assert [(name, fault) for name, fault in sorted(named) if fault not in rows] == []
