"""The manifests and the compose file in deploy/, as the tools of their systems see them.

Comes in: the files; the schemas of Kubernetes in the package kubernetes-validate; docker compose, where it is
installed. Goes out: what these say. Nothing is started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from system_tools import said_by

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = ["kubernetes/p2pcore.yaml", "fleet/nats.yaml"]
COMPOSE = "fleet/compose.yaml"

pytestmark = pytest.mark.source


def objects(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.mark.parametrize("name", KUBERNETES)
@pytest.mark.parametrize("version", [all_versions()[0], all_versions()[-1]])
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    assert len(objects(name)) >= 5
    for each in objects(name):
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize(
    ("field", "value"), [("terminationGracePeriodSecond", 45), ("terminationGracePeriodSeconds", "45s")]
)
def test_a_wrong_field_is_found(field: str, value: Any) -> None:
    [stateful] = [each for each in objects(KUBERNETES[0]) if each["kind"] == "StatefulSet"]
    stateful["spec"]["template"]["spec"][field] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(stateful, all_versions()[-1], strict=True)


@cache
def _compose() -> tuple[str, ...]:
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]):
            asked = subprocess.run(
                [*command, "version", "--short"], capture_output=True, text=True, check=False
            )
            if asked.returncode == 0 and not asked.stdout.startswith("1."):
                return command
    return ()


def compose(path: Path, **environment: str) -> tuple[int, str]:
    """(the exit status of `docker compose config`, what it prints)."""
    if not _compose():
        pytest.skip("docker compose is not installed")
    ours = {name: value for name, value in os.environ.items() if name != "NATS_TOKEN"}
    return said_by([*_compose(), "-f", path, "config"], env=ours | environment)


def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    status, said = compose(DEPLOY / COMPOSE, NATS_TOKEN="long and random")
    assert status == 0, said
    resolved = yaml.safe_load(said)["services"]["nats"]
    assert resolved["environment"]["NATS_TOKEN"] == "long and random"
    assert [Path(each["source"]).exists() for each in resolved["volumes"] if each["type"] == "bind"] == [True]
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((DEPLOY / COMPOSE).read_text().replace("restart:", "restarts:"))
    assert compose(wrong, NATS_TOKEN="x")[0] != 0, "nothing is checked"


def test_docker_compose_asks_for_the_token() -> None:
    status, said = compose(DEPLOY / COMPOSE)
    assert status != 0
    assert "set it to a long random text" in said
