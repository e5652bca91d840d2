"""The files in deploy/fleet/: they are valid, they agree, and a real nats-server takes its configuration."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import HANG_S, seconds
from nats_server import nats_command

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy" / "fleet"

pytestmark = pytest.mark.source


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of the manifest, by kind and name."""
    documents = yaml.safe_load_all((DEPLOY / "nats.yaml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def configurations() -> dict[str, str]:
    return {
        "compose": (DEPLOY / "nats.conf").read_text(),
        "kubernetes": manifests()["ConfigMap", "nats"]["data"]["nats.conf"],
    }


@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_nats_server_takes_the_configuration(name: str, tmp_path: Path) -> None:
    path = tmp_path / "nats.conf"
    path.write_text(configurations()[name])
    environment = os.environ | {"NATS_TOKEN": "x", "POD_NAME": "nats-0"}
    done = subprocess.run(
        [*nats_command(), "-t", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=seconds(HANG_S),
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    path.write_text(configurations()[name] + "\nno_such_setting_of_nats: 1\n")
    wrong = [*nats_command(), "-t", "--config", str(path)]
    done = subprocess.run(wrong, capture_output=True, timeout=seconds(HANG_S), env=environment, check=False)
    assert done.returncode != 0, "nothing is checked"


def test_the_compose_file_names_what_is_there() -> None:
    found = compose()
    [service] = found["services"].values()
    for volume in service["volumes"]:
        source, _, target = volume.partition(":")
        assert source in found["volumes"] or (DEPLOY / source).exists()
        assert target.partition(":")[0] in " ".join([*service["command"], configurations()["compose"]])
    assert "$NATS_TOKEN" in configurations()["compose"]
    assert "NATS_TOKEN" in service["environment"]


def test_objects_refer_to_objects_that_are_there() -> None:
    found = manifests()
    stateful = found["StatefulSet", "nats"]["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget", "nats"]["spec"]["selector"]["matchLabels"] == labels
    pod = stateful["template"]["spec"]
    [container] = pod["containers"]
    ports = {port["name"] for port in container["ports"]}
    for name in ("nats", stateful["serviceName"]):
        service = found["Service", name]["spec"]
        assert service["selector"] == labels
        assert {port["targetPort"] for port in service["ports"]} <= ports
    volumes = {volume["name"] for volume in [*pod["volumes"]]}
    volumes |= {claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_the_configuration_of_the_pods_fits_to_the_objects() -> None:
    stateful = manifests()["StatefulSet", "nats"]["spec"]
    config = configurations()["kubernetes"]
    [container] = stateful["template"]["spec"]["containers"]
    routes = re.findall(r"nats://([\w.-]+):6222", config)
    assert routes == [f"nats-{n}.{stateful['serviceName']}" for n in range(stateful["replicas"])]
    assert set(re.findall(r"\$(\w+)", config)) <= {each["name"] for each in container["env"]}
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    for path in re.findall(r'(?:store_dir|pid_file): "([\w/.]+)"', config):
        assert path in mounted or str(Path(path).parent) in mounted
    [lame_duck] = re.findall(r'lame_duck_duration: "(\d+)s"', config)
    assert int(lame_duck) < stateful["template"]["spec"]["terminationGracePeriodSeconds"]


def test_all_files_name_one_version_that_is_new_enough() -> None:
    [container] = manifests()["StatefulSet", "nats"]["spec"]["template"]["spec"]["containers"]
    [service] = compose()["services"].values()
    built = re.search(r"nats-server/v2 v(\d+\.\d+)", (ROOT / "interop" / "nats" / "go.mod").read_text())
    assert built is not None
    assert container["image"] == service["image"] == f"nats:{built[1]}-alpine"
