"""Checks the container files without Docker: `check_containers.py TARGET_DIR`.

It reads the files as Docker would, then does outside Docker what the image does: the build stage's commands run in
a copy that holds only what the Dockerfile copies, and the binary is started, asked and stopped the way a container is.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SECRET_NAME = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")
PROFILE = re.compile(r"--profile \S+")
READY_WITHIN_S = 30

problems = []


def check(holds, message):
    if not holds:
        problems.append(message)


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────


class Stage:
    def __init__(self, image, name):
        self.image, self.name = image, name
        self.instructions = []

    def all(self, keyword):
        return [arguments for word, arguments in self.instructions if word == keyword]

    def last(self, keyword):
        return (self.all(keyword) or [None])[-1]

    def environment(self):
        return dict(pair.split("=", 1) for arguments in self.all("ENV") for pair in shlex.split(arguments))


def read_dockerfile():
    lines = (line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.strip() and not line.startswith("#"))
    stages = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        word, arguments = line.split(None, 1)
        arguments = " ".join(arguments.split())
        if word == "FROM":
            image, _, name = arguments.partition(" AS ")
            stages.append(Stage(image, name))
        else:
            stages[-1].instructions.append((word, arguments))
    return stages


def copies(stage):
    """The COPY instructions that take files from the build context: (sources, destination)."""
    for arguments in stage.all("COPY"):
        if not arguments.startswith("--from="):
            *sources, destination = arguments.split()
            yield sources, destination


def ignored(path):
    """Whether .dockerignore keeps `path` (relative to the root) out of the build context; later lines win."""
    result = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        parts = Path(path).parts
        prefixes = ["/".join(parts[: length + 1]) for length in range(len(parts))]
        names = prefixes + [part for part in parts if pattern.startswith("**/")]
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/") if name in parts else pattern) for name in names):
            result = not line.strip().startswith("!")
    return result


def known_variables():
    """Every WEIR_ name that the command line's sources mention."""
    sources = (ROOT / "crates/cli/src").rglob("*.rs")
    return {name for source in sources for name in re.findall(r'"(WEIR_[A-Z_]+)"', source.read_text())}


# ── Dockerfile ──────────────────────────────────────────────────────────────────────────────────────


def pinned(image):
    name, _, tag = image.rpartition(":")
    return bool(name) and tag not in ("", "latest")


def check_dockerfile(stages):
    names = {stage.name for stage in stages if stage.name}
    for stage in stages:
        check(pinned(stage.image) or stage.image in names, f"Dockerfile: image {stage.image} has no fixed tag")
        for sources, _ in copies(stage):
            for source in sources:
                check((ROOT / source).exists(), f"Dockerfile: COPY {source}: no such file")
                check(not ignored(source), f"Dockerfile: COPY {source}: .dockerignore keeps it out")
        for arguments in stage.all("COPY"):
            if match := re.match(r"--from=(\S+)", arguments):
                check(match[1] in names, f"Dockerfile: COPY --from={match[1]}: no such stage")
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    check(f":{workspace['package']['rust-version']}-" in stages[0].image, "Dockerfile: not the Rust version of Cargo.toml")
    copied = {source for sources, _ in copies(stages[0]) for source in sources}
    for member in workspace["members"]:
        check(member.split("/")[0] in copied, f"Dockerfile: the workspace member {member} is not copied")

    final = stages[-1]
    user = final.last("USER")
    check(user is not None and user.isdigit() and int(user) != 0, "Dockerfile: the last stage needs USER with a fixed id, not root")
    check(final.last("HEALTHCHECK") not in (None, "NONE"), "Dockerfile: no HEALTHCHECK")
    check(final.last("VOLUME") is not None, "Dockerfile: no VOLUME for the data")
    for word in ("ENTRYPOINT", "CMD"):
        check((final.last(word) or "").startswith("["), f"Dockerfile: {word} must be a list, or signals go to a shell")
    environment = final.environment()
    port = environment.get("WEIR_LISTEN", "").rpartition(":")[2]
    check(port == final.last("EXPOSE"), "Dockerfile: EXPOSE and WEIR_LISTEN name different ports")
    for name in environment:
        check(name in known_variables(), f"Dockerfile: weir knows no variable {name}")
        check(not SECRET_NAME.search(name), f"Dockerfile: {name}: secrets do not belong into an image")
    return port


# ── Compose ─────────────────────────────────────────────────────────────────────────────────────────


def check_compose(file, port):
    compose = yaml.safe_load((ROOT / file).read_text())
    services, volumes = compose["services"], compose.get("volumes", {})
    for name, service in services.items():
        where = f"{file}: {name}"
        check("build" in service or pinned(service.get("image", "")), f"{where}: image has no fixed tag")
        check("profiles" in service or service.get("healthcheck"), f"{where}: no healthcheck")
        for dependency in service.get("depends_on", {}):
            check(dependency in services, f"{where}: depends on {dependency}, which does not exist")
        for published in service.get("ports", []):
            check(str(published).startswith("127.0.0.1:"), f"{where}: port {published} is open to the network")
        for secret in service.get("secrets", []):
            check(secret in compose.get("secrets", {}), f"{where}: secret {secret} is not declared")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            check((ROOT / source).exists() if source.startswith(".") else source in volumes, f"{where}: volume {source} does not exist")
        for variable, value in service.get("environment", {}).items():
            check(not variable.startswith("WEIR_") or variable in known_variables(), f"{where}: weir knows no variable {variable}")
            if SECRET_NAME.search(variable):
                check(re.fullmatch(r"\$\{\w+:\?.+\}", str(value)), f"{where}: {variable} must have no default and be required (:?)")
        if "build" in service:
            check(Path(ROOT / file).parent.joinpath(service["build"], "Dockerfile").exists(), f"{where}: no Dockerfile in {service['build']}")
            check(all(published.endswith(f":{port}") for published in service.get("ports", [])), f"{where}: the port is not the image's")
    nodes = [service["environment"]["WEIR_NODE"] for service in services.values() if "build" in service]
    check(len(nodes) == len(set(nodes)), f"{file}: two servers have one WEIR_NODE")


def check_roles(file):
    """Every role has a server."""
    services = yaml.safe_load((ROOT / file).read_text())["services"].values()
    roles = {role for service in services for role in service["environment"].get("WEIR_ROLES", "").split(",") if role}
    check(roles == {"api", "ingest", "worker"}, f"{file}: the roles are {sorted(roles)}")


def check_prometheus(port):
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    targets = [target for job in prometheus["scrape_configs"] for group in job["static_configs"] for target in group["targets"]]
    check(targets == [f"weir:{port}"], f"deploy/prometheus.yml: targets {targets} are not weir:{port}")


# ── Doing what the image does ───────────────────────────────────────────────────────────────────────


def run_build_stage(stage, target):
    """Runs the build stage in a copy of what it copies; gives the path of the binary.

    The profile is the one that the tests have just compiled, and the target folder is theirs, so that what comes from
    elsewhere is not compiled again; the command line is otherwise the Dockerfile's. Our own crates get a setting that
    tells them apart: cargo takes two copies of a workspace for the same, and would neither compile this one nor notice
    later that the other has changed. What the copy would miss in the image, it misses here.
    """
    context = target / "container" / "source"
    output = target / "container" / "out"
    shutil.rmtree(context, ignore_errors=True)
    shutil.rmtree(output, ignore_errors=True)
    context.mkdir(parents=True)

    def skip(folder, names):
        return [name for name in names if ignored(Path(folder, name).relative_to(ROOT))]

    for sources, destination in copies(stage):
        for source in sources:
            to = context / destination
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, ignore=skip)
            else:
                shutil.copy2(ROOT / source, to / source)
    own = (tomllib.loads(manifest.read_text())["package"]["name"] for manifest in context.rglob("Cargo.toml") if manifest.parent != context)
    (context / ".cargo").mkdir()
    (context / ".cargo/config.toml").write_text("".join(f"[profile.dev.package.{name}]\ndebug = false\n" for name in own))
    for arguments in stage.all("RUN"):
        command = re.sub(r"--mount=\S+ ", "", arguments)
        command = PROFILE.sub("--profile dev", command).replace(" target/dist/", f" {target}/debug/").replace("/out/", f"{output}/")
        print(f"    {command}", flush=True)
        done = subprocess.run(["sh", "-euc", command], cwd=context, env=os.environ | {"CARGO_TARGET_DIR": str(target), "CARGO_TERM_QUIET": "true"}, check=False)
        if done.returncode != 0:
            check(False, f"Dockerfile: a build step ended with {done.returncode} in a copy of what the Dockerfile copies: {command}")
            return None
    return output / "weir"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_container(stage, port, binary):
    """Starts the entry point with the image's variables, asks the health check until it agrees, stops it with SIGTERM."""
    health = json.loads(stage.last("HEALTHCHECK").split(" CMD ", 1)[1])
    command = json.loads(stage.last("ENTRYPOINT")) + json.loads(stage.last("CMD"))
    with tempfile.TemporaryDirectory() as folder:
        inside = {
            name: value.replace("/data", folder).replace(f"0.0.0.0:{port}", f"127.0.0.1:{free_port()}")
            for name, value in stage.environment().items()
        }
        environment = {"PATH": f"{binary.parent}:/usr/bin:/bin"} | inside
        with open(Path(folder, "log"), "wb") as log:
            server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
            try:
                healthy = wait_for_health(health, environment, folder, server)
                server.send_signal(signal.SIGTERM)
                status = server.wait(timeout=30)
            finally:
                if server.poll() is None:
                    server.kill()
        tail = Path(folder, "log").read_text(errors="replace")[-1500:]
        check(healthy, f"Dockerfile: `{shlex.join(health)}` never succeeded; the server said:\n{tail}")
        check(not healthy or status == 0, f"Dockerfile: after SIGTERM the server ended with {status}:\n{tail}")


def wait_for_health(health, environment, folder, server):
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        # The search path of `environment` counts, not ours.
        program = shutil.which(health[0], path=environment["PATH"])
        if subprocess.run([program, *health[1:]], env=environment, cwd=folder, capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(0.2)
    return False


def main():
    stages = read_dockerfile()
    port = check_dockerfile(stages)
    check_compose("docker-compose.yml", port)
    check_compose("deploy/compose-roles.yml", port)
    check_roles("deploy/compose-roles.yml")
    check_prometheus(port)
    if not problems:
        binary = run_build_stage(stages[0], Path(sys.argv[1]).resolve())
        if binary is not None:
            run_container(stages[-1], port, binary)
    for problem in problems:
        print(f"    {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
