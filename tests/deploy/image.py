"""The Dockerfile without Docker: its steps in a chroot over this machine's files, its command as in a container.

A stage is an overlay over the root directory, in a mount namespace of its own: what steps write stays in a folder. That
is for a machine like the base image, a Debian with Python. The command runs as the image's user, as process 1, without
privileges, on a read-only root. Needs root. What must not live here: test cases.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.harness import ROOT

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"


@dataclass
class Stage:
    """One FROM and what follows it: instructions in order, and what the last ones of a kind say."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str:
        """What the last such instruction says."""
        return [text for name, text in self.steps if name == instruction][-1]

    def environment(self) -> dict[str, str]:
        """ENV and ARG, without what they refer to being put in."""
        pairs = (pair for name, text in self.steps if name in ("ENV", "ARG") for pair in shlex.split(text))
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def stages() -> list[Stage]:
    """The Dockerfile, read."""
    text = "".join(line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines(True) if line[0] != "#")
    found: list[Stage] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction, _, rest = line.strip().partition(" ")
        rest = re.sub(r" {2,}", " ", rest.strip())
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(name, base))
        else:
            found[-1].steps.append((instruction, rest))
    return found


def can_build() -> bool:
    """Whether this machine lets us mount an overlay."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    script = (
        "d=$(mktemp -d) && trap 'rmdir $d/m; rm -rf $d' EXIT && mkdir $d/u $d/w $d/m && "
        "mount -t overlay o -o lowerdir=/,upperdir=$d/u,workdir=$d/w $d/m && umount $d/m"
    )
    return subprocess.run(["unshare", "--mount", "bash", "-c", script], capture_output=True).returncode == 0


class Image:
    """What the Dockerfile makes, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages = stages()
        # As in the base image: its Python comes first on PATH.
        self.path = f"{Path(sys.base_prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

    def build(self) -> None:
        """Run every step of every stage; AssertionError with the output when one fails."""
        script = ["set -euo pipefail", *self._context()]
        for stage in self.stages:
            script += self._mount(stage)
            # Whoever the image's user is must reach this machine's Python, wherever it is; and names are resolved.
            for parent in list(Path(sys.base_prefix).parents)[:-1]:
                script.append(f"chmod o+x {self._merged(stage)}{parent}")
            script.append(f"cp /etc/resolv.conf /etc/hosts {self._merged(stage)}/etc/")
            script += self._steps(stage)
        self._run("\n".join(script))

    @contextlib.contextmanager
    def container(self, environment: Mapping[str, str], tmpfs: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Its ENTRYPOINT and CMD, as process 1; `environment` is added to the image's."""
        stage = self.stages[-1]
        script = [
            "set -euo pipefail",
            *self._mount(stage),
            f"mount -o remount,ro,lowerdir=/,upperdir={self._upper(stage)},workdir={self._work(stage)} "
            f"overlay {self._merged(stage)}",
        ]
        for line in tmpfs:
            place, _, options = line.partition(":")
            script.append(f"mount -t tmpfs -o {options} tmpfs {self._merged(stage)}{place}")
        command = json.loads(stage.last("ENTRYPOINT")) + json.loads(stage.last("CMD"))
        script.append(f"exec {self._enter(stage, environment)} {shlex.join(command)}")
        outer = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", "\n".join(script)]
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(outer, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Another command in such a container; AssertionError with the output when it fails."""
        stage = self.stages[-1]
        self._run("\n".join([*self._mount(stage), f"exec {self._enter(stage, environment)} {shlex.join(command)}"]))

    def log(self) -> str:
        """What the container said."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def written(self) -> Path:
        """What the last stage has beyond its base."""
        return self._upper(self.stages[-1])

    # The words of the script.

    def _run(self, script: str) -> None:
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:]

    def _place(self, stage: Stage, what: str) -> Path:
        return self.folder / f"{stage.name or 'last'}-{what}"

    def _upper(self, stage: Stage) -> Path:
        return self._place(stage, "upper")

    def _work(self, stage: Stage) -> Path:
        return self._place(stage, "work")

    def _merged(self, stage: Stage) -> Path:
        return self._place(stage, "merged")

    def _mount(self, stage: Stage) -> list[str]:
        upper, work, merged = self._upper(stage), self._work(stage), self._merged(stage)
        return [
            f"mkdir -p {upper} {work} {merged}",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={upper},workdir={work} {merged}",
            f"mount -t proc proc {merged}/proc",
            f"mount --rbind /dev {merged}/dev",
            f"mount --rbind /sys {merged}/sys",
        ]

    def _context(self) -> list[str]:
        """What `docker build` sends: the folder without what .dockerignore names."""
        ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        patterns = [line.removeprefix("**/") for line in ignored if line and line[0] not in "#!" and line != "*"]
        kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]
        tar = shlex.join(["tar", "-C", str(ROOT), *(f"--exclude={p}" for p in patterns), "-c", *kept])
        return [f"mkdir -p {self.folder}/context", f"{tar} | tar -C {self.folder}/context -x --no-same-owner"]

    def _steps(self, stage: Stage) -> Iterator[str]:
        variables, directory, root = {"PATH": self.path, "HOME": "/root"}, "/", self._merged(stage)
        for instruction, text in stage.steps:
            if instruction in ("ENV", "ARG"):
                for name, _, value in (pair.partition("=") for pair in shlex.split(text)):
                    variables[name] = expand(value, variables)
            elif instruction == "WORKDIR":
                directory = text
                yield f"mkdir -p {root}{directory}"
            elif instruction == "RUN":
                yield self._chroot(root, variables, f"cd {directory} && {text}")
            elif instruction == "COPY":
                yield from self._copy(root, directory, expand(text, variables))
            else:
                assert instruction in {"USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}, instruction

    def _chroot(self, root: Path, variables: Mapping[str, str], command: str) -> str:
        passed = {k: v for k, v in os.environ.items() if k.startswith("PIP_") or k.lower().endswith("_proxy")}
        words = ["chroot", str(root), "env", "-i", *(f"{k}={v}" for k, v in {**passed, **variables}.items())]
        return shlex.join([*words, "DEBIAN_FRONTEND=noninteractive", "sh", "-ec", command])

    def _copy(self, root: Path, directory: str, text: str) -> Iterator[str]:
        *sources, target = text.split()
        origin = self.folder / "context"
        if sources[0].startswith("--from="):
            named = {stage.name: stage for stage in self.stages}
            origin = self._merged(named[sources.pop(0).removeprefix("--from=")])
        place = f"{root}{target if target.startswith('/') else f'{directory}/{target}'}"
        for source in sources:
            # A directory's contents are copied, and a file by its name.
            yield f"if [ -d {origin}/{source} ]; then mkdir -p {place} && cp -a {origin}/{source}/. {place}/;"
            yield f"else mkdir -p $(dirname {place}x) && cp -a {origin}/{source} {place}; fi"

    def _enter(self, stage: Stage, environment: Mapping[str, str]) -> str:
        variables = {"PATH": self.path, "HOME": "/"}
        for name, value in stage.environment().items():
            variables[name] = expand(value, variables)
        user, _, group = stage.last("USER").partition(":")
        words = ["env", "-i", f"--chdir={stage.last('WORKDIR')}"]
        words += [f"{k}={v}" for k, v in {**variables, **environment}.items()]
        words += ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs"]
        words += ["--bounding-set=-all", "--inh-caps=-all", "--"]
        return f"chroot {self._merged(stage)} {shlex.join(words)}"


def expand(text: str, variables: Mapping[str, str]) -> str:
    """$NAME and ${NAME}, as the Dockerfile knows them."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: variables[match[1]], text)
