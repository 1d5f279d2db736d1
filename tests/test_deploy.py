"""The deployment files: every name, port, path and flag in them is one that the product has."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from packaging.requirements import Requirement

from trimtab import Settings, Trimtab
from trimtab.app import create_app
from trimtab.cli import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
MANIFESTS = [
    each
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
SETTINGS = [DEPLOY / "trimtab.toml", DEPLOY / "kubernetes" / "trimtab.toml"]


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [each for each in MANIFESTS if each["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifest("Deployment")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    assert isinstance(only, dict)
    return only


def commands() -> Iterator[list[str]]:
    """What follows "trimtab" wherever it is started."""
    yield yaml.safe_load(re.findall(r"^CMD (\[.*\])$", CONTAINERFILE, re.MULTILINE)[-1])
    yield COMPOSE["services"]["trimtab"]["command"]
    yield container()["args"]


def instructions(name: str) -> list[str]:
    joined = CONTAINERFILE.replace("\\\n", " ")
    return [line.removeprefix(name).strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def image_environ() -> dict[str, str]:
    final_stage = instructions("ENV")[-1]
    return dict(pair.split("=", 1) for pair in shlex.split(final_stage))


def test_the_commands_and_their_options_are_there() -> None:
    group = typer.main.get_command(app)
    for command, *arguments in commands():
        known = {option for each in group.commands[command].params for option in each.opts}  # type: ignore[attr-defined]
        assert {each for each in arguments if each.startswith("-")} <= known
        assert arguments[arguments.index("--host") + 1] == "0.0.0.0"


@pytest.mark.parametrize("file", SETTINGS, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_the_settings_are_settings(file: Path) -> None:
    settings = Settings.load(file)
    assert settings.database.startswith("postgresql://")
    assert Trimtab(settings).catalog.providers
    mounted = f"/etc/trimtab/{file.name}"
    assert all(command[command.index("--config") + 1] == mounted for command in list(commands())[1:])


def test_every_variable_is_read_by_somebody() -> None:
    read = {"PGPASSWORD"}  # by libpq
    for file in SETTINGS:
        settings = Settings.load(file)
        read |= {str(provider.api_key_env) for provider in settings.providers}
        read |= {str(settings.dashboard_key_env), str(settings.metrics_key_env), settings.webhook_secret_env}
    assert set(COMPOSE["services"]["trimtab"]["environment"]) == read
    asked = (DEPLOY / "kubernetes" / "kustomization.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"--from-literal=([A-Z_]+)=", asked)) == read
    assert COMPOSE["secrets"]["metrics_key"]["environment"] in read


def test_paths_that_are_probed_and_scraped_are_there() -> None:
    paths = {getattr(route, "path", "") for route in create_app(Trimtab()).routes}
    probed = {container()[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"][0]
    checked = re.findall(r"http://127\.0\.0\.1:\d+(/\w+)", CONTAINERFILE)
    assert checked == ["/healthz"]
    assert probed | {scraped["metrics_path"], *checked} <= paths


def test_the_port_is_the_servers_own() -> None:
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    port = str(next(each.default for each in serve.params if each.name == "port"))
    assert instructions("EXPOSE") == [port]
    assert f"http://127.0.0.1:{port}/healthz" in CONTAINERFILE
    assert COMPOSE["services"]["trimtab"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert [each["containerPort"] for each in container()["ports"]] == [int(port)]
    (service,) = manifest("Service")["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (int(port), container()["ports"][0]["name"])
    assert f"trimtab:{port}" in (DEPLOY / "prometheus.yaml").read_text(encoding="utf-8")


def test_what_is_written_is_written_to_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root file system is read-only: data, cache and /tmp are all that there is to write to."""
    for name, value in image_environ().items():
        if name.startswith("XDG_"):
            monkeypatch.setenv(name, value)
    written = {str(Settings().data_dir), str(Settings().cache_dir)}
    assert set(yaml.safe_load(instructions("VOLUME")[0])) == written
    assert written <= set(re.findall(r"(?<= )/var/\S+", CONTAINERFILE))  # made for the user that it runs as
    assert image_environ()["HOME"] == "/tmp"
    mounts = {each["mountPath"] for each in container()["volumeMounts"]}
    assert mounts == written | {"/tmp", "/etc/trimtab"}
    assert {each["name"] for each in container()["volumeMounts"]} == {each["name"] for each in pod()["volumes"]}
    service = COMPOSE["services"]["trimtab"]
    assert {each.split(":")[1] for each in service["volumes"]} == written | {"/etc/trimtab/trimtab.toml"}
    assert service["tmpfs"] == ["/tmp"]
    assert service["read_only"]
    assert container()["securityContext"]["readOnlyRootFilesystem"]


def test_it_runs_as_nobody_in_particular_and_may_nothing() -> None:
    (user,) = {line.split(":")[0] for line in instructions("USER")}
    assert f"--uid {user} " in CONTAINERFILE
    security = pod()["securityContext"]
    assert (str(security["runAsUser"]), security["runAsNonRoot"]) == (user, True)
    assert container()["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert COMPOSE["services"]["trimtab"]["cap_drop"] == ["ALL"]
    assert pod()["automountServiceAccountToken"] is False


def test_the_image_copies_what_there_is_and_ships_no_tools() -> None:
    copied = [each.split()[:-1] for each in instructions("COPY") if not each.startswith("--from")]
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists()
        assert f"!{path}" in ignored
    final = CONTAINERFILE.split("\nFROM ")[-1]
    assert "pip" not in final
    assert "apt" not in final


def test_the_lock_has_every_dependency_with_its_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    locked: dict[str, list[str]] = {}
    for line in lock.splitlines():
        if re.match("[a-z]", line):
            assert "--hash=sha256:" in line
            name, version = re.split(r"[ ;]", line)[0].split("==")
            locked.setdefault(name.partition("[")[0], []).append(version)
    extras = re.findall(r"--extra (\w+)", (DEPLOY / "release-check").read_text(encoding="utf-8"))
    wanted = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    for each in map(Requirement, wanted):
        if each.name == "torch":
            assert "torch" not in locked
            assert next(each for each in wanted if each.startswith("torch")) in CONTAINERFILE
        else:
            assert locked[each.name], f"{each} is not in requirements.lock: run make release-check"
            assert all(each.specifier.contains(version) for version in locked[each.name])


def test_it_is_given_the_time_to_end_in_good_order() -> None:
    source = (ROOT / "trimtab" / "cli.py").read_text(encoding="utf-8")
    graceful_s = int(re.findall(r"timeout_graceful_shutdown\W+(\d+)", source)[0])
    assert pod()["terminationGracePeriodSeconds"] >= graceful_s + 5
    assert int(COMPOSE["services"]["trimtab"]["stop_grace_period"].rstrip("s")) > graceful_s


def test_no_secret_is_in_a_file() -> None:
    for file in DEPLOY.rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"\bsk-|whsec_[A-Za-z0-9+/]{10}|password\s*[:=]\s*\w", text, re.IGNORECASE), file


def test_kustomize_builds_it() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    built = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    kinds = {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
    }
    assert set(built) == kinds
    spec = built["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    for selector in (spec["selector"]["matchLabels"], built["Service"]["spec"]["selector"]):
        assert selector.items() <= labels.items()
    assert built["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    volumes = {each["name"]: each for each in spec["template"]["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == built["ConfigMap"]["metadata"]["name"]
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == built["PersistentVolumeClaim"]["metadata"]["name"]
