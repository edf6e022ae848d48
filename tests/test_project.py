"""What surrounds the code says what is so: versions of Python, workflow files, pre-commit, the changelog.

What must not live here: what is shipped (test_package.py), the README (test_readme.py), names and links in pages
(tests/deploy/test_guides.py).
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

from tests.support.harness import ROOT
from tests.test_source import TOOLS
from tidegate.version import version

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = {
    path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
CHANGELOG = (ROOT / "deploy" / "guides" / "changelog.md").read_text(encoding="utf-8")


def matrix(workflow: str, job: str) -> dict[str, Any]:
    """The matrix of a workflow's job."""
    found: dict[str, Any] = yaml.safe_load(WORKFLOWS[workflow])["jobs"][job]["strategy"]["matrix"]
    return found


def classified() -> list[str]:
    """The versions of Python that the classifiers name."""
    prefix = "Programming Language :: Python :: 3."
    return [name.removeprefix(prefix[:-2]) for name in PROJECT["project"]["classifiers"] if name.startswith(prefix)]


def tag(python: str) -> str:
    """Of wheels: 3.13 -> cp313."""
    return "cp" + python.replace(".", "")


def test_every_supported_python_is_tested() -> None:
    assert PROJECT["project"]["requires-python"] == f">={classified()[0]}"
    assert matrix("tests", "everything")["python"] == classified()
    running = ".".join(map(str, sys.version_info[:2]))
    assert running in classified(), "the tests pass on a Python that no classifier names"


def test_wheels_are_for_every_supported_python() -> None:
    """And for others that dependencies have wheels for, which a release may lack."""
    built = matrix("release", "wheels")["python"]
    assert built[: len(classified())] == [tag(python) for python in classified()]
    (optional,) = re.findall(r"continue-on-error: (.*)", WORKFLOWS["release"])
    assert re.findall(r"cp\d+", optional) == built[len(classified()) :]
    for python in built:
        assert fnmatch.fnmatch(f"{python}-manylinux_x86_64", PROJECT["tool"]["cibuildwheel"]["build"])


def test_what_tests_of_a_wheel_need_is_there() -> None:
    settings = PROJECT["tool"]["cibuildwheel"]
    assert set(settings["test-extras"]) <= set(PROJECT["project"]["optional-dependencies"])
    named = [word for word in settings["test-command"].split() if "/" in word]
    for path in [*settings["test-sources"], *named]:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_are_what_github_understands(name: str) -> None:
    """With the schema that check-jsonschema brings along."""
    path = ROOT / ".github" / "workflows" / f"{name}.yml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actions_are_pinned() -> None:
    """To a commit, which nobody can move, one for each action."""
    used = [use for workflow in WORKFLOWS.values() for use in re.findall(r"uses: (.*)", workflow)]
    assert len(used) > 5
    for use in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use), use
    assert len(set(used)) == len({use.partition("@")[0] for use in used})
    for pinned in re.findall(r"pip install (.*)", "\n".join(WORKFLOWS.values())):
        assert re.fullmatch(r"[\w-]+==[\d.]+", pinned), pinned


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_may_do_no_more_than_they_need(name: str) -> None:
    workflow = yaml.safe_load(WORKFLOWS[name])
    assert workflow["permissions"] == {"contents": "read"}
    granted = {job: found["permissions"] for job, found in workflow["jobs"].items() if "permissions" in found}
    assert granted == ({"publish": {"id-token": "write"}} if name == "release" else {})


def test_what_workflows_run_is_there() -> None:
    assert ".ci/run" in [step.get("run") for step in yaml.safe_load(WORKFLOWS["tests"])["jobs"]["everything"]["steps"]]
    for path in ("run", "wheel"):
        assert (ROOT / ".ci" / path).stat().st_mode & 0o111


def test_pre_commit_runs_the_tools_of_the_tests() -> None:
    """From the environment of the extra `test`, so that no version of them is written down twice."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert all(repository["repo"] == "local" for repository in config["repos"])
    assert {hook["language"] for hook in hooks} == {"system"}
    commands = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    assert sorted(commands) == sorted(tool.removesuffix(" --check") for tool in TOOLS)
    extra = {re.split(r"\W", name)[0] for name in PROJECT["project"]["optional-dependencies"]["test"]}
    assert {command.split()[0] for command in commands} <= extra


def test_the_changelog_begins_with_this_version() -> None:
    """In the form of Keep a Changelog: newest first, dated or not yet released, in its groups."""
    releases = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert re.fullmatch(rf"{re.escape(version)} - (unreleased|\d{{4}}-\d\d-\d\d)", releases[0])
    groups = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= groups
