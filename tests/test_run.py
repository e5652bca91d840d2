"""p2pcore.run at a signal: the program drains and ends without a traceback, as workers do."""

from __future__ import annotations

import asyncio
import gc
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import p2pcore
from harness import HANG_S, looped, seconds
from hosts import BARE
from p2pcore import Host
from p2pcore.aio.stopping import Interrupted
from p2pcore.limits import GC_OLDEST_THRESHOLD

LIMIT_S = HANG_S
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])

SERVER = """
    import asyncio, sys
    from p2pcore import Host, run

    async def echo(stream):
        while data := await stream.read():
            await stream.write(data)

    async def main():
        async with Host() as host:
            host.set_stream_handler("/my-echo/1.0.0", echo)
            print(host.addrs_with_peer[0], flush=True)
            try:
                await asyncio.Event().wait()
            finally:
                print("stopping", flush=True)

    run(main(), drain_s=float(sys.argv[1]))
    """


@contextmanager
def program(text: str, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # so that `line` takes no more than a line
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], seconds(LIMIT_S))[0], "no line came"
    return process.stdout.readline().decode().strip()


@SIGNALS
@looped
async def test_streams_go_on_after_a_signal_until_they_end(number: int) -> None:
    with program(SERVER, "60") as process:
        address = line(process)
        async with Host(listen=(), **BARE) as host:
            stream = await host.new_stream(address, "/my-echo/1.0.0")
            await stream.write(b"before")
            assert await stream.read() == b"before"
            process.send_signal(number)
            assert line(process) == "stopping"
            for _ in range(3):
                await stream.write(b"after")
                assert await stream.read() == b"after"
            assert process.poll() is None
            await stream.close()
            out, err = await asyncio.to_thread(process.communicate, timeout=seconds(LIMIT_S))
    assert (process.returncode, out, err) == (128 + number, b"", b"")


@looped
async def test_a_drain_lasts_no_longer_than_asked_for() -> None:
    with program(SERVER, "0.2") as process:
        async with Host(listen=(), **BARE) as host:
            stream = await host.new_stream(line(process), "/my-echo/1.0.0")
            await stream.write(b"before")
            await stream.read()
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, timeout=seconds(LIMIT_S))
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@looped
async def test_a_second_signal_ends_it_at_once_and_without_a_traceback(second: int) -> None:
    with program(SERVER, "600") as process:
        async with Host(listen=(), **BARE) as host:
            stream = await host.new_stream(line(process), "/my-echo/1.0.0")
            await stream.write(b"before")
            await stream.read()
            process.send_signal(signal.SIGTERM)
            assert line(process) == "stopping"
            process.send_signal(second)
            _, err = await asyncio.to_thread(process.communicate, timeout=seconds(LIMIT_S))
    assert (process.returncode, err) == (-second, b"")


def test_a_second_signal_ends_even_a_loop_that_is_blocked() -> None:
    text = """
        import asyncio, time
        from p2pcore import run

        async def main():
            try:
                print("started", flush=True)
                await asyncio.Event().wait()
            finally:
                print("blocked", flush=True)
                time.sleep(1000)

        run(main())
        """
    with program(text) as process:
        assert line(process) == "started"
        process.send_signal(signal.SIGINT)
        assert line(process) == "blocked"
        process.send_signal(signal.SIGINT)
        assert process.wait(seconds(LIMIT_S)) == -signal.SIGINT


@SIGNALS
def test_a_program_may_catch_it_as_a_keyboard_interrupt_or_end_well_itself(number: int) -> None:
    text = """
        import asyncio
        from p2pcore import run

        async def main(swallow):
            print("started", flush=True)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not swallow:
                    raise
            return "done"

        try:
            run(main(False))
        except KeyboardInterrupt as error:
            print(error.code, flush=True)
        print(run(main(True)), flush=True)
        """
    with program(text) as process:
        for expected in (str(128 + number), "done"):
            assert line(process) == "started"
            process.send_signal(number)
            assert line(process) == expected
        assert process.wait(seconds(LIMIT_S)) == 0


def test_handlers_of_the_program_are_left_alone_and_ours_do_not_stay() -> None:
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    async def main() -> None:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)

    mine = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        p2pcore.run(main())
    finally:
        signal.signal(signal.SIGTERM, mine)
    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_in_another_thread_takes_no_signals() -> None:
    seen: list[object] = []

    async def main() -> None:
        seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: p2pcore.run(main()))
    thread.start()
    thread.join(seconds(LIMIT_S))
    assert seen == [signal.SIG_DFL]


def test_it_is_a_system_exit_and_a_keyboard_interrupt() -> None:
    assert Interrupted(130).code == 130
    assert issubclass(Interrupted, KeyboardInterrupt)


@SIGNALS
def test_a_signal_before_the_loop_runs_leaves_no_warning(number: int) -> None:
    text = f"""
        import os, uvloop, p2pcore

        real = uvloop.new_event_loop

        def interrupted():
            os.kill(os.getpid(), {int(number)})
            return real()

        async def main():
            print("it runs")

        uvloop.new_event_loop = interrupted
        p2pcore.run(main())
        """
    with program(text) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    assert (out, err) == (b"", b"")
    assert process.returncode == 128 + number


@pytest.mark.filterwarnings("error")
def test_what_is_refused_leaves_no_warning() -> None:
    async def main() -> None: ...

    for wrong in ({"spin_s": -1}, {"drain_s": "1"}):
        with pytest.raises((TypeError, ValueError)):
            p2pcore.run(main(), **wrong)  # type: ignore[arg-type]
    gc.collect()
    with pytest.raises(TypeError, match=r"main must be a coroutine, as main\(\)"):
        p2pcore.run(main)  # type: ignore[arg-type]


def test_a_wrong_time_to_drain_is_refused() -> None:
    async def main() -> None: ...

    coroutine = main()
    with pytest.raises(ValueError, match="drain_s must be"):
        p2pcore.run(coroutine, drain_s=-1)
    coroutine.close()


# -- the collector -----------------------------------------------------------------------------


def test_while_a_program_runs_the_collector_looks_at_everything_seldom() -> None:
    was = gc.get_threshold()

    async def main() -> tuple[tuple[int, ...], int]:
        return gc.get_threshold(), gc.get_freeze_count()

    inside, num_frozen = p2pcore.run(main())
    assert inside == (*was[:2], GC_OLDEST_THRESHOLD)
    assert num_frozen > 1000
    assert gc.get_threshold() == was
    assert gc.get_freeze_count() == 0


def test_what_a_program_has_set_for_the_collector_stays() -> None:
    was = gc.get_threshold()
    kept: list[object] = []
    gc.set_threshold(900, 20, 500)
    gc.freeze()
    try:
        p2pcore.run(_noted(kept))
        assert kept == [(900, 20, 500)]
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
        gc.set_threshold(*was)


async def _noted(kept: list[object]) -> None:
    kept.append(gc.get_threshold())


def test_the_collector_is_as_before_after_an_error() -> None:
    was = gc.get_threshold()

    async def main() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        p2pcore.run(main())
    assert gc.get_threshold() == was
    assert gc.get_freeze_count() == 0
