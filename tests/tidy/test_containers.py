"""`docker-compose.yml` and `deploy/` name only what there is. No engine is asked: files, schemas and parsers are."""

import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from api.commands import COMMANDS, Commands
from engine.settings import EngineSettings
from tests.tidy.project_files import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROFILES = ("single", "cluster")
ONCE = {"secrets", "migrate", "create-cluster"}
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
PINNED = re.compile(r"(?:\S+/)?[a-z-]+:v?\d+\.\d+(?:\.\d+)?(?:-[a-z0-9-]+)?")
REFERENCE = re.compile(r"\{([a-z-]+)\}")
INTERPOLATED = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")


def known_names(profile: str) -> set[str]:
    """What a container of this profile can be called by another."""
    names = set()
    for name, service in SERVICES.items():
        if profile in service["profiles"]:
            networks = service["networks"]
            aliases = (networks["shop"] or {}).get("aliases", []) if isinstance(networks, dict) else []
            names |= {name, *aliases}
    return names


def environment(service: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def test_the_compose_file_is_one_by_the_specification() -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_is_a_whole_shop(profile: str) -> None:
    names = known_names(profile)
    parts = {"secrets", "postgres", "migrate", "api-1", "api-2", "worker-1", "worker-2"}
    assert names >= parts | {"load-balancer", "prometheus", "grafana"}
    nodes = {name for name in names if name.startswith("valkey")}
    assert nodes == ({"valkey"} if profile == "single" else {f"valkey-{number}" for number in range(1, 7)})


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_service_waits_for_is_there_and_can_be_waited_for(profile: str) -> None:
    for name, service in SERVICES.items():
        if profile not in service["profiles"]:
            continue
        for other, how in service.get("depends_on", {}).items():
            assert profile in SERVICES[other]["profiles"] or how.get("required") is False, (name, other)
            finished = how["condition"] == "service_completed_successfully"
            assert finished == (other in ONCE), (name, other)
            assert finished or "test" in SERVICES[other].get("healthcheck", {}) or other in OURS, (name, other)


def test_images_are_pinned_by_version() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images = [INTERPOLATED.sub(r"\1", service["image"]) for service in SERVICES.values()]
    assert [image for image in (*images, *bases) if not PINNED.fullmatch(image)] == []


def test_every_file_that_is_mounted_or_copied_exists() -> None:
    volumes = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    named = {source for source, *_ in volumes if not source.startswith(".")}
    assert named <= COMPOSE["volumes"].keys()
    missing = [source for source, *_ in volumes if source.startswith(".") and not (ROOT / source).exists()]
    assert missing == []
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {f"!{Path(source).parts[0]}" for source in sources} <= set(let_in)


def test_every_setting_that_is_given_is_one_of_the_documented() -> None:
    documented = set(re.findall(r"`(FIRSTCOME_[A-Z_]+)`", (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")))
    given = {name for service in SERVICES.values() for name in environment(service) if name.startswith("FIRSTCOME_")}
    assert given - documented == set()
    assert {name for service in SERVICES.values() if "build" not in service for name in environment(service)} == {
        "POSTGRES_USER",
        "POSTGRES_DB",
        "POSTGRES_PASSWORD_FILE",
        "GF_SECURITY_ADMIN_PASSWORD__FILE",
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH",
    }


def test_apis_and_workers_are_given_what_the_first_start_fixes_with_the_defaults_of_the_settings() -> None:
    fixed = {
        "FIRSTCOME_CURRENCY": f"${{FIRSTCOME_CURRENCY:-{EngineSettings().currency}}}",
        "FIRSTCOME_TIME_ZONE": f"${{FIRSTCOME_TIME_ZONE:-{EngineSettings().time_zone}}}",
    }
    for name, service in OURS.items():
        if name not in ONCE:
            assert environment(service).items() >= fixed.items(), name


def test_every_command_that_is_run_exists_with_its_options() -> None:
    group = Commands()
    for name, service in OURS.items():
        if name == "secrets":
            continue
        command, *arguments = service["command"]
        assert command in COMMANDS, name
        found = group.get_command(group.make_context("firstcome", [], resilient_parsing=True), command)
        assert found is not None
        found.make_context(command, list(arguments), resilient_parsing=False).close()


def test_no_secret_stands_in_the_file_and_each_that_is_named_is_made() -> None:
    makes = (ROOT / "deploy" / "make-secrets").read_text(encoding="utf-8")
    for name, service in SERVICES.items():
        for variable, value in environment(service).items():
            for reference in REFERENCE.findall(value):
                assert re.search(rf"\b{reference}\b", makes), (name, variable)
            if re.search(r"PASSWORD|SECRET|TOKEN", variable):
                assert INTERPOLATED.fullmatch(value) or value.startswith("/run/firstcome/"), (name, variable)
            password = re.search(r"://[^/@]*:([^@]*)@", value)
            assert password is None or REFERENCE.fullmatch(password[1]), (name, variable)
            if value.startswith("/run/firstcome/"):
                assert value.rpartition("/")[2] in makes


def test_the_addresses_of_redis_are_ones_that_the_program_takes() -> None:
    for name, service in OURS.items():
        if address := environment(service).get("FIRSTCOME_REDIS_URL"):
            EngineSettings(redis_url=address)
            seeds = re.findall(r"([a-z0-9-]+):6379", address)
            assert all(set(service["profiles"]) <= set(SERVICES[seed]["profiles"]) for seed in seeds), name


def test_what_runs_on_is_looked_after() -> None:
    for name, service in SERVICES.items():
        if name not in ONCE:
            assert service["restart"] == "unless-stopped", name
            assert name in OURS or "test" in service["healthcheck"], name
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1] == "firstcome"
    assert "HEALTHCHECK" in DOCKERFILE


@pytest.mark.parametrize("profile", PROFILES)
def test_load_balancer_and_prometheus_ask_who_is_there(profile: str) -> None:
    nginx = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    servers = re.findall(r"server ([a-z0-9-]+):8000", nginx)
    assert servers == ["api-1", "api-2"]
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    targets = [
        target.split(":")
        for job in prometheus["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert {*servers, *(host for host, _ in targets)} - {"127.0.0.1"} <= known_names(profile)
    ports = {host: port for host, port in targets}
    assert ports["worker-1"] == environment(SERVICES["worker-1"])["FIRSTCOME_WORKER_METRICS_PORT"]
    assert ports["api-1"] in SERVICES["api-1"]["command"]


def test_the_scripts_in_the_image_are_plain_shell_and_can_be_run() -> None:
    for name in ("with-secrets", "make-secrets", "create-cluster", "postgres-logins.sh"):
        file = ROOT / "deploy" / name
        assert file.stat().st_mode & 0o111
        subprocess.run(["sh", "-n", str(file)], check=True)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH")
def test_promtool_finds_nothing_wrong_with_the_configuration() -> None:
    config = str(ROOT / "deploy" / "prometheus" / "prometheus.yml")
    command = ["promtool", "check", "config", "--syntax-only", config]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not on the PATH")
def test_nginx_finds_nothing_wrong_with_the_configuration(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    file = tmp_path / "nginx.conf"
    # Here no host has the names of the containers, and the folders of the image are not ours.
    file.write_text(re.sub(r"server api-\d", "server 127.0.0.1", text).replace("/tmp/", f"{tmp_path}/"))
    done = subprocess.run(["nginx", "-t", "-c", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
