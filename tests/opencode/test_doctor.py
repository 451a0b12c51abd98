"""What the real OpenCode makes of what `init` wrote, and `doctor` of both."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks import commands
from tests.conftest import Repo, run


def findings(repo: Repo) -> dict[str, Any]:
    return {check["name"]: check for check in repo.tasks("doctor", "--json", check=False).json["checks"]}


def finding(repo: Repo, name: str) -> dict[str, Any]:
    return dict(findings(repo)[name])


def as_opencode(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "opencode").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "opencode").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_opencode_reads_what_was_written(
    repo: Repo, programs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    binary, _ = programs
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}{os.environ['PATH']}")
    shell = str(repo.common / "opencode-tasks" / "bin" / "tasksh")
    before = (repo.top / ".opencode" / "opencode.jsonc").read_bytes()
    env = {"PWD": str(repo.top), "OPENCODE_DISABLE_MODELS_FETCH": "1"}
    config = run([binary, "--pure", "debug", "config"], cwd=repo.top, env=env).json
    assert config["shell"] == shell
    assert set(config["command"]) == {p.stem for p in (repo.top / ".opencode" / "commands").iterdir()}
    assert set(config["command"]) & set(commands.MODULES)
    assert "opencode-tasks v1" not in json.dumps([config["command"], config["agent"]]), (
        "our line is no text for a model"
    )
    assert config["agent"]["docker-sandbox"]["mode"] == "all"
    assert config["plugin"] == [(repo.top / ".opencode" / "plugins" / "opencode-tasks.js").as_uri()]
    assert (repo.top / ".opencode" / "opencode.jsonc").read_bytes() == before
    assert repo.git("status", "--porcelain", "-uall").out == ""
    found = findings(repo)
    assert found["opencode"]["detail"].startswith("1.18.")
    assert found["opencode shell"]["ok"]
    assert found["opencode shell"]["detail"] == f"{shell}, by `opencode debug config`"
    monkeypatch.setenv("OPENCODE_CONFIG_CONTENT", '{"shell": "/bin/sh"}')
    last = finding(repo, "opencode shell")
    assert not last["ok"]
    assert last["detail"].startswith("/bin/sh instead of")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 2.0.1", "2.0.1"),
        ("echo 1.17.9", "older than 1.18"),
        ("echo what", "does not tell its version: what"),
        ("exit 1", "does not tell"),
    ],
)
def test_another_version_is_refused_with_the_reason(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    as_opencode(tmp_path / "other", script, monkeypatch)
    checks = findings(repo)
    assert not checks["opencode"]["ok"]
    assert said in checks["opencode"]["detail"]
    assert "by its files" in checks["opencode shell"]["detail"]
    assert checks["opencode shell"]["ok"]


def test_without_it_our_own_reading_has_to_do(repo: Repo, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if "node" not in p))
    assert finding(repo, "opencode shell")["ok"]
    monkeypatch.setenv("OPENCODE_CONFIG_DIR", str(isolated))
    (isolated / "opencode.json").write_text('{\n// mine\n"shell": "fish",}')
    assert f"fish of {isolated / 'opencode.json'} instead of" in finding(repo, "opencode shell")["detail"]
    monkeypatch.delenv("OPENCODE_CONFIG_DIR")
    plugin = repo.top / ".opencode" / "plugins" / "opencode-tasks.js"
    plugin.unlink()
    launcher = repo.common / "opencode-tasks" / "bin" / "tasksh"
    launcher.chmod(0o644)
    (repo.top / ".opencode" / "opencode.jsonc").unlink()
    assert f"{launcher} outdated; {plugin} missing" in finding(repo, "opencode files")["detail"]
    assert "the default shell instead of" in finding(repo, "opencode shell")["detail"]
    repo.tasks("init")
    found = findings(repo)
    assert found["opencode files"]["ok"]
    assert found["opencode shell"]["ok"]
    assert os.access(launcher, os.X_OK)
