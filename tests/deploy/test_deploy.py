"""What users run on machines of their own: manifests that agree with the code and are closed to strangers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import prefect.settings
import psutil
import pytest
import yaml
from distributed import Client
from distributed.cli import dask_scheduler, dask_worker

from flows import server, services
from pipeline import cluster
from pipeline.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SHELL = [DEPLOY / "secrets.sh", DEPLOY / "setup.sh", *sorted((DEPLOY / "slurm").iterdir())]
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VALIDATORS = ROOT / ".venv-deploy"
"""The environment that `make validators` makes."""
CRDS = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds"
"""Where dask-kubernetes has its schemas."""
TLS = "DASK_DISTRIBUTED__COMM__TLS__"


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


DEPLOYMENTS = documents(DEPLOY / "prefect.yaml")[0]["deployments"]
COMPOSE = documents(DEPLOY / "compose.yaml")[0]
KUBERNETES = {f"{d['kind']}/{d['metadata']['name']}": d for p in MANIFESTS for d in documents(p) if "metadata" in d}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod specification of everything that runs in Kubernetes."""
    for name, document in KUBERNETES.items():
        spec = document.get("spec", {})
        if document["kind"] in ("Deployment", "Job"):
            yield name, spec["template"]["spec"]
        for part in ("scheduler", "worker"):
            if document["kind"].startswith("Dask") and part in spec:
                yield f"{name} {part}", spec[part]["spec"]


def parts() -> Iterator[tuple[str, list[str], dict[str, str], str]]:
    """Name, command, environment and image of every part, of compose and of Kubernetes."""
    for name, service in COMPOSE["services"].items():
        image = service["image"].replace("${IMAGE:-marstfn:0.1.0}", "marstfn:0.1.0")
        yield f"compose {name}", service["command"], service["environment"], image
    for name, pod in pods():
        for container in pod["containers"]:
            env = {e["name"]: e.get("value", "from a secret") for e in container["env"]}
            yield name, container["args"], env, container["image"]


PARTS = {name: (command, env, image) for name, command, env, image in parts()}
DASK = [name for name, (command, *_) in PARTS.items() if command[0] == "dask"]


def test_every_part_is_there() -> None:
    assert len(PARTS) == 7 + 6
    assert len(DASK) == 4 + 3


@pytest.mark.parametrize("name", PARTS)
def test_images_are_of_this_version_and_fit_the_device(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = PARTS[name][2]
    assert image.rpartition(":")[2] == f"{version}-{'cuda' if 'gpu' in name else 'cpu'}"


@pytest.mark.parametrize("name", DASK)
def test_dask_speaks_tls_alone_with_a_certificate_of_its_own_role(name: str) -> None:
    command, env, _ = PARTS[name]
    role = "SCHEDULER" if command[1] == "scheduler" else "WORKER"
    assert env["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"
    assert {k for k in env if k.startswith(TLS)} == {f"{TLS}CA_FILE", f"{TLS}{role}__CERT", f"{TLS}{role}__KEY"}
    assert any(word.startswith("tls://") for word in command)
    assert not any("tcp://" in word for word in command)


@pytest.mark.parametrize("name", DASK)
def test_dask_understands_its_command_line(name: str) -> None:
    command = PARTS[name][0]
    main = dask_scheduler.main if command[1] == "scheduler" else dask_worker.main
    given = main.make_context("dask", command[2:], resilient_parsing=False).params
    if command[1] == "worker":
        amount = {k: int(v) for k, _, v in [given["resources"].partition("=")]}
        wanted = cluster.GPU if "gpu" in name or "cpu-" in name else cluster.IO
        # a slot is a thread; a device has as many tiles at once as on one machine
        assert amount == {wanted: given["nthreads"]}
        if wanted == cluster.GPU:
            assert amount[wanted] == (1 if "cpu-" in name else cluster.TILES["cuda"])


@pytest.mark.parametrize("name", [n for n, (c, *_) in PARTS.items() if c[0] in ("prefect", "sh")])
def test_prefect_asks_and_gives_the_auth_string(name: str) -> None:
    command, env, _ = PARTS[name]
    key = "PREFECT_SERVER_API_AUTH_STRING" if command[:2] == ["prefect", "server"] else "PREFECT_API_AUTH_STRING"
    # by reference: in no file of the repository
    assert env[key] == "from a secret" or env[key].startswith("${PREFECT_AUTH:?")
    if "worker" in name:
        assert env["MARSTFN_SCHEDULER"].startswith("tls://")
        assert {f"{TLS}CA_FILE", f"{TLS}CLIENT__CERT", f"{TLS}CLIENT__KEY"} <= set(env)
        everywhere = {d["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] for d in DEPLOYMENTS}
        assert {env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]} == everywhere
        assert command[command.index("--pool") + 1] == services.POOL


def test_settings_named_anywhere_exist() -> None:
    text = "\n".join(p.read_text() for p in DEPLOY.rglob("*") if p.is_file() and ".pem" not in p.name)
    ours = {f"MARSTFN_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bMARSTFN_[A-Z_]+", text)) <= ours
    prefects = set(re.findall(r"\bPREFECT_[A-Z0-9_]+", text)) - {"PREFECT_AUTH"}
    assert not [name for name in prefects if not hasattr(prefect.settings, name)]
    assert not hasattr(prefect.settings, "PREFECT_NO_SUCH_SETTING")
    for name in set(re.findall(r"\bDASK_[A-Z_]+__[A-Z_]+", text)):
        key = name.removeprefix("DASK_").lower().replace("__", ".").replace("_", "-")
        dask.config.get(key)  # KeyError: Dask has no such setting


def test_loopback_alone_is_published() -> None:
    published = [port for s in COMPOSE["services"].values() for port in s.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert {d["spec"].get("type", "ClusterIP") for d in KUBERNETES.values() if d["kind"] == "Service"} == {"ClusterIP"}
    assert KUBERNETES["DaskCluster/marstfn"]["spec"]["scheduler"]["service"]["type"] == "ClusterIP"


@pytest.mark.parametrize(("name", "pod"), list(pods()))
def test_pods_may_do_nothing_they_need_not(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    named = {v["name"] for v in pod.get("volumes", ())}
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert "memory" in container["resources"]["limits"]
        assert {m["name"] for m in container.get("volumeMounts", ())} <= named
    gpu = "gpu" in name
    limits = pod["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == ("1" if gpu else None)


def test_the_network_is_closed_but_for_what_the_parts_need() -> None:
    policies = {n: d["spec"] for n, d in KUBERNETES.items() if d["kind"] == "NetworkPolicy"}
    closed = policies.pop("NetworkPolicy/closed")
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress"]}
    labels = [
        d["spec"]["template"]["metadata"]["labels"] for d in KUBERNETES.values() if "template" in d.get("spec", {})
    ]
    labels += [{"dask.org/cluster-name": "marstfn", "dask.org/component": c} for c in ("scheduler", "worker")]

    def meets(selector: dict[str, Any]) -> bool:
        return any(selector["matchLabels"].items() <= own.items() for own in labels)

    for name, policy in policies.items():
        assert meets(policy["podSelector"]), name
        for rule in policy["ingress"]:
            for source in rule["from"]:
                assert "namespaceSelector" in source or meets(source["podSelector"]), name


def test_what_the_code_starts_workers_with_is_what_the_file_says() -> None:
    (file,) = documents(DEPLOY / "dask.yaml")
    with dask.config.set(file):
        for key, value in cluster.CONFIG.items():
            assert dask.config.get(key) == value, key
        assert dask.config.get("distributed.comm.require-encryption") is True


def test_the_automation_is_the_one_that_up_makes() -> None:
    (named,) = re.findall(r'files\("flows"\) / "([^"]+)"', (DEPLOY / "setup.sh").read_text())
    assert server.DEAD_RUNS.name == named
    assert json.loads(server.DEAD_RUNS.read_text())["name"] in (DEPLOY / "setup.sh").read_text()


def test_the_image_is_made_of_what_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [p for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M) for p in line.split()]
    assert copied
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path.split('/')[0]}" in ignored, path
    make = re.search(r"^TORCH \?= (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert make is not None
    assert f'ARG TORCH="{make[1]}"' in text
    # torch before anything that depends on it
    assert text.index("${TORCH}\n") < text.index("requirements.lock /src/\nRUN")
    assert "USER 1000:1000" in text


def test_secrets_by_reference_only() -> None:
    wanted = {
        v["secret"]["secretName"] for _, pod in pods() for v in pod.get("volumes", ()) if "secret" in v
    }  # fmt: skip
    assert wanted == {f"marstfn-tls-{role}" for role in ("scheduler", "worker", "client")}
    readme = (DEPLOY / "README.md").read_text()
    assert "marstfn-tls-$role" in readme
    assert "Secret" not in {d["kind"] for d in KUBERNETES.values()}
    files = {Path(s["file"]).name for s in COMPOSE["secrets"].values()}
    assert "ca-key.pem" not in files


@pytest.mark.validators
@pytest.mark.parametrize("kind", ["daskcluster", "daskworkergroup"])
def test_the_operator_takes_them(kind: str) -> None:
    found = sorted(VALIDATORS.glob(f"lib/python*/site-packages/{CRDS}/{kind}.yaml"))
    if not found:
        pytest.skip("no dask-kubernetes here, which ships the schema: run `make validators`")
    jsonschema = pytest.importorskip("jsonschema")
    definition = documents(found[-1])[0]
    assert definition["spec"]["group"] == "kubernetes.dask.org"
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    ours = [d for d in KUBERNETES.values() if d["kind"].lower() == kind]
    assert ours
    for document in ours:
        jsonschema.Draft7Validator(_strict(schema)).validate(document["spec"])


def _strict(schema: Any) -> Any:
    """The schema with unknown fields refused, where the operator would drop them without a word."""
    if isinstance(schema, dict):
        out = {k: _strict(v) for k, v in schema.items()}
        known = out.get("properties")
        if isinstance(known, dict) and out.get("type") == "object" and "metadata" not in known:
            out.setdefault("additionalProperties", bool(out.get("x-kubernetes-preserve-unknown-fields")))
        return out
    return [_strict(v) for v in schema] if isinstance(schema, list) else schema


@pytest.mark.validators
@pytest.mark.parametrize(
    "command",
    [
        ["shellcheck", "--external-sources", "--source-path", str(DEPLOY), *map(str, SHELL)],
        ["hadolint", str(DEPLOY / "Dockerfile")],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")],
        ["kubernetes-validate", "--strict", *map(str, MANIFESTS)],
    ],
    ids=lambda command: command[0],
)
def test_their_own_tools_have_nothing_to_say(command: list[str]) -> None:
    program = shutil.which(command[0], path=f"{VALIDATORS / 'bin'}:{os.environ['PATH']}")
    if program is None:
        pytest.skip(f"no {command[0]} here: run `make validators`")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, cwd=DEPLOY, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SHELL, ids=lambda p: p.name)
def test_scripts_are_read_by_a_plain_shell(path: Path) -> None:
    subprocess.run(["sh", "-n", str(path)], check=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run(["sh", str(DEPLOY / "secrets.sh"), str(folder)], check=True, capture_output=True)
    return folder / "certificates"


def test_certificates_are_of_one_authority_and_kept(certificates: Path) -> None:
    for role in ("scheduler", "worker", "client"):
        checked = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", f"{role}.pem"]
        subprocess.run(checked, cwd=certificates, check=True, capture_output=True)
        assert (certificates / f"{role}-key.pem").stat().st_mode & 0o077 == 0
    before = {p.name: p.read_bytes() for p in certificates.iterdir()}
    secret = (certificates.parent / ".env").read_bytes()
    subprocess.run(["sh", str(DEPLOY / "secrets.sh"), str(certificates.parent)], check=True, capture_output=True)
    assert {p.name: p.read_bytes() for p in certificates.iterdir()} == before
    assert (certificates.parent / ".env").read_bytes() == secret
    assert re.fullmatch(r"PREFECT_AUTH=marstfn:[0-9a-f]{48}\nOWNER=\d+:\d+\n", secret.decode())


@pytest.mark.server
def test_the_parts_find_each_other_and_let_nobody_else_in(certificates: Path, tmp_path: Path) -> None:
    """The commands of compose.yaml, on loopback: a client with a certificate is let in, one without is not."""
    settings = {f"{TLS}CA_FILE": str(certificates / "ca.pem")}
    for role in ("scheduler", "worker", "client"):
        settings[f"{TLS}{role.upper()}__CERT"] = str(certificates / f"{role}.pem")
        settings[f"{TLS}{role.upper()}__KEY"] = str(certificates / f"{role}-key.pem")
    env = os.environ | settings | {"DASK_CONFIG": str(DEPLOY / "dask.yaml")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    with socket.socket() as probe, socket.socket() as other:
        probe.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, page = probe.getsockname()[1], other.getsockname()[1]
    address = f"tls://127.0.0.1:{port}"
    here = {"tls://0.0.0.0": "tls://127.0.0.1", "8786": str(port), "0.0.0.0:8787": f"127.0.0.1:{page}"}
    here |= {"tls://scheduler:8786": address, "127.0.0.1:8787": "127.0.0.1:0", "/tmp": str(tmp_path)}
    commands = [
        [here.get(word, word) for word in COMPOSE["services"][name]["command"]]
        for name in ("scheduler", "io-worker", "gpu-worker")
    ]
    running = [
        subprocess.Popen(c, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
        for c in commands
    ]
    try:
        keys = {name: name.removeprefix("DASK_").lower().replace("__", ".").replace("_", "-") for name in settings}
        with dask.config.set({keys[name]: value for name, value in settings.items()}), _waited(address) as made:
            until = time.monotonic() + 60
            while cluster.slots(made, cluster.IO) != 4 or cluster.slots(made, cluster.GPU) != 2:
                assert time.monotonic() < until, "the workers did not come"
                time.sleep(0.2)
            assert made.submit(sum, [1, 2], resources={cluster.GPU: 1}).result(timeout=60) == 3
            assert made.run_on_scheduler(lambda: dask.config.get("distributed.scheduler.work-stealing")) is False
        health = [sys.executable, str(DEPLOY / "health.py"), str(page), "/health"]
        assert subprocess.run(health, check=False).returncode == 0
        for stranger in (address, address.replace("tls", "tcp")):
            with pytest.raises((OSError, TimeoutError, ValueError, RuntimeError, TypeError)):
                Client(stranger, timeout=3, set_as_default=False)
    finally:
        # nannies and their workers together; those whose scheduler is gone may not heed a signal for minutes
        parents = [psutil.Process(process.pid) for process in running]
        for one in [p for parent in parents for p in (*parent.children(recursive=True), parent)]:
            one.kill()
        for process in running:
            process.wait(30)
    assert subprocess.run(health, check=False, capture_output=True).returncode == 1


def _waited(address: str) -> Client:
    """A client, once the scheduler answers."""
    until = time.monotonic() + 60
    while True:
        try:
            return Client(address, timeout=5, set_as_default=False)
        except (OSError, TimeoutError):
            assert time.monotonic() < until, "the scheduler did not come"


def test_deployments_name_flows_that_exist() -> None:
    (document,) = documents(DEPLOY / "prefect.yaml")
    for deployment in document["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        assert importlib.util.find_spec(module) is not None
        assert f"def {name}(" in Path(importlib.util.find_spec(module).origin).read_text()  # type: ignore[union-attr, arg-type]
        assert deployment["work_pool"]["name"] == services.POOL
