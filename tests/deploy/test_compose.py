"""The services of the compose files: open to this machine only, with passwords, without needless rights."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from deploy.tools import DEPLOY, check_schema

FILES = sorted(DEPLOY.glob("docker-compose*.yml"))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))[
        "services"
    ]
    return found


def test_the_files_follow_the_compose_specification() -> None:
    check_schema("compose-spec", *FILES)


def test_without_a_profile_only_this_machine_is_served(services: dict[str, Any]) -> None:
    ports = [
        port
        for service in services.values()
        if not service.get("profiles")
        for port in service.get("ports", ())
    ]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_pacs_and_the_server_share_a_password_that_has_no_default(services: dict[str, Any]) -> None:
    orthanc, segmed = (services[name]["environment"] for name in ("orthanc", "segmed"))
    assert orthanc["ORTHANC__AUTHENTICATION_ENABLED"] == "true"
    required = re.compile(r"\$\{ORTHANC_PASSWORD:\?[^}]+\}")
    assert required.search(orthanc["ORTHANC__REGISTERED_USERS"])
    assert required.fullmatch(segmed["MONAI_LABEL_DICOMWEB_PASSWORD"])
    assert f'"{segmed["MONAI_LABEL_DICOMWEB_USERNAME"]}":' in orthanc["ORTHANC__REGISTERED_USERS"]
    assert "ORTHANC_PASSWORD=\n" in (DEPLOY / ".env.example").read_text(encoding="utf-8")


def test_the_server_asks_for_a_login_and_runs_on_a_read_only_root(services: dict[str, Any]) -> None:
    segmed = services["segmed"]
    assert any(word.startswith("--users=") for word in segmed["command"])
    assert "--insecure" not in segmed["command"]
    assert segmed["read_only"] is True
    assert segmed["cap_drop"] == ["ALL"]
    written = {volume.split(":")[1] for volume in segmed["volumes"]}
    assert written == {"/data", "/tmp"}
    paths = [word for word in segmed["command"] if word.startswith("/")]
    assert all(path.startswith("/data/") for path in paths)


def test_the_proxy_is_trusted_by_its_network_only() -> None:
    whole = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))
    subnet = whole["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    assert whole["services"]["segmed"]["environment"]["SEGMED_PROXIES"] == subnet


def test_mounted_files_exist(services: dict[str, Any]) -> None:
    mounted = [v.split(":")[0] for s in services.values() for v in s["volumes"] if v.startswith("./")]
    assert mounted
    for name in mounted:
        assert (DEPLOY / name).is_file(), name
