"""The unit and the manifests in deploy/: they are valid, and what they name works on a real node."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import HANG_S, seconds

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UNIT = DEPLOY / "systemd" / "p2pcore.service"
INSTALLED = "/usr/local/bin/p2pcore"

pytestmark = pytest.mark.source


class Machine:
    """A directory that stands for the root of a machine: the command, its directories, its configuration."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.command = root / "p2pcore"
        self.command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m p2pcore.cli "$@"\n')
        self.command.chmod(0o755)
        for name in ("state", "run", "etc"):
            (root / name).mkdir()

    def here(self, text: str) -> str:
        """`text` with the paths of this machine, and with free ports."""
        text = text.replace(INSTALLED, str(self.command)).replace(
            "/var/lib/p2pcore", str(self.root / "state")
        )
        text = text.replace("/run/p2pcore", str(self.root / "run"))
        text = text.replace("/etc/p2pcore", str(self.root / "etc"))
        text = text.replace("/ip6/::/tcp/4001", "/ip4/127.0.0.1/tcp/0")
        return text.replace("/ip4/0.0.0.0/tcp/4001", "/ip4/127.0.0.1/tcp/0")

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("P2PCORE_CONFIG")}
        return kept | more | {"PATH": f"{self.root}:{os.environ['PATH']}"}

    def status(self) -> dict[str, Any]:
        command = [str(self.command), "status", "--admin", str(self.root / "run" / "admin.sock"), "--json"]
        found: dict[str, Any] = json.loads(subprocess.check_output(command, timeout=seconds(HANG_S)))
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# -- systemd -----------------------------------------------------------------------------------


def settings(unit: str) -> dict[str, list[str]]:
    """The values of each key of a unit, in order."""
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_systemd_takes_the_unit(machine: Machine) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    unit = machine.root / "p2pcore.service"
    unit.write_text(machine.here(UNIT.read_text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_starts_reloads_and_stops_a_node(machine: Machine) -> None:
    unit = settings(machine.here(UNIT.read_text()))
    (machine.root / "etc" / "node.toml").write_text(
        machine.here((DEPLOY / "systemd" / "node.toml").read_text())
    )
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(machine.root / "notify"))
    variables = dict(each.split("=", 1) for each in unit["Environment"])
    environment = machine.environment(NOTIFY_SOCKET=str(machine.root / "notify"), **variables)

    def told(word: str) -> None:
        while True:
            assert select.select([notify], [], [], seconds(HANG_S))[0], f"no {word} came"
            if f"{word}=1" in notify.recv(4096).decode().split("\n"):
                return

    for command in unit["ExecStartPre"]:
        subprocess.run(shlex.split(command), env=environment, check=True, timeout=seconds(HANG_S))
    [start], [reload] = unit["ExecStart"], unit["ExecReload"]
    process = subprocess.Popen(shlex.split(start), env=environment, stdout=subprocess.DEVNULL)
    try:
        told("READY")
        before = machine.status()
        assert len(before["workers"]) == 2
        subprocess.run(shlex.split(reload.replace("$MAINPID", str(process.pid))), check=True)
        told("RELOADING")
        told("READY")
        after = machine.status()
        pids = [{worker["pid"] for worker in status["workers"]} for status in (before, after)]
        assert pids[0].isdisjoint(pids[1])
        assert before["peer_id"] == after["peer_id"]
        process.send_signal(signal.SIGTERM)
        told("STOPPING")
        assert process.wait(seconds(HANG_S)) == 0
    finally:
        process.kill()
        process.wait()
        notify.close()


def test_the_unit_waits_longer_than_a_drain_takes(machine: Machine) -> None:
    unit = settings(UNIT.read_text())
    config = machine.root / "node.toml"
    config.write_text(machine.here((DEPLOY / "systemd" / "node.toml").read_text()))
    (machine.root / "state" / "node.key").write_text("")
    assert _drain_s(config.read_text()) < int(unit["TimeoutStopSec"][0])


def _drain_s(config: str) -> float:
    """The longest time that the end of a node with this configuration takes."""
    import tomllib

    values = tomllib.loads(config)
    return float(values.get("drain", 10)) + float(values.get("drain-delay", 0))


# -- Kubernetes --------------------------------------------------------------------------------


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of the manifest, by kind and name."""
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "p2pcore.yaml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifests()["StatefulSet", "p2pcore"]["spec"]["template"]["spec"]
    return spec


def test_objects_refer_to_objects_that_are_there() -> None:
    found = manifests()
    stateful = found["StatefulSet", "p2pcore"]["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"] == labels
    assert ("Service", stateful["serviceName"]) in found
    for name in ("p2pcore", "p2pcore-peers"):
        service = found["Service", name]["spec"]
        assert service["selector"] == labels
        [container] = pod()["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["ports"]} <= ports
    volumes = {volume["name"] for volume in pod()["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]}
    for container in [*pod()["containers"], *pod()["initContainers"]]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert ("ConfigMap", "p2pcore") in found


def test_a_pod_has_longer_to_end_than_a_drain_takes() -> None:
    config = manifests()["ConfigMap", "p2pcore"]["data"]["node.toml"]
    assert _drain_s(config) < pod()["terminationGracePeriodSeconds"]


@pytest.fixture
def running(machine: Machine) -> Iterator[tuple[Machine, subprocess.Popen[bytes], dict[str, Any]]]:
    """The container of the manifest as a process here, after its init container."""
    [container], [first] = pod()["containers"], pod()["initContainers"]
    config = manifests()["ConfigMap", "p2pcore"]["data"]["node.toml"]
    config = machine.here(config).replace("0.0.0.0:9464", f"127.0.0.1:{_free_port()}")
    (machine.root / "etc" / "node.toml").write_text(config)
    variables = {each["name"]: machine.here(each["value"]) for each in container["env"]}
    environment = machine.environment(**variables)
    subprocess.run([machine.here(word) for word in first["command"]], env=environment, check=True)
    process = subprocess.Popen(container["command"], env=environment, stdout=subprocess.PIPE)
    try:
        yield machine, process, container
    finally:
        process.kill()
        process.communicate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_the_probes_of_the_manifest_work_on_a_real_node(
    running: tuple[Machine, subprocess.Popen[bytes], dict[str, Any]],
) -> None:
    machine, process, container = running
    config = (machine.root / "etc" / "node.toml").read_text()
    found = re.search(r'metrics = "127.0.0.1:(\d+)"', config)
    assert found is not None
    port = int(found[1])

    def probe(name: str) -> int:
        get = container[name]["httpGet"]
        assert {"name": get["port"], "containerPort": 9464} in container["ports"]
        with socket.create_connection(("127.0.0.1", port), timeout=seconds(HANG_S)) as sock:
            sock.sendall(f"GET {get['path']} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return int(sock.recv(4096).split()[1])

    assert process.stdout is not None
    assert select.select([process.stdout], [], [], seconds(HANG_S))[0], "the node prints no address"
    assert [probe(name) for name in ("startupProbe", "readinessProbe", "livenessProbe")] == [200, 200, 200]
    process.send_signal(signal.SIGTERM)
    while (readiness := probe("readinessProbe")) == 200:
        pass
    assert (readiness, probe("livenessProbe")) == (503, 200)
    assert process.wait(seconds(HANG_S)) == 0
