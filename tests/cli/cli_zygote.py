"""Imports the command once and runs it many times in forks, because tests run it by the hundred.

Comes in: orders on the socket whose number is its argument, each with arguments and a directory in JSON and
the three standard descriptors. Goes out: the exit status of each. Each command has its own fork.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from importlib import import_module

from p2pcore.cli import main
from p2pcore.cli.app import COMMANDS


def become(order: dict[str, object], descriptors: list[int]) -> int:
    """Runs the command of `order` in this process. Returns: its exit status."""
    for standard, descriptor in enumerate(descriptors):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    # As the interpreter does for the descriptors it is given.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(str(order["directory"]))
    args = order["args"]
    assert isinstance(args, list)
    sys.argv = ["p2pcore", *args]
    return main()


def serve(orders: socket.socket) -> int:
    """Obeys until the socket is closed."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, 1 << 20, 3)
        if not message:
            return 0
        pid = os.fork()
        if not pid:
            orders.close()
            return become(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        orders.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    for name in COMMANDS:
        import_module(f"p2pcore.cli.{name}_command")
    # Ctrl-C is for pytest; a fork has the usual handler again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
