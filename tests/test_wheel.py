"""What users install: the wheel's exact files, and its hooks and commands at work from it."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Repo, run

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ("commands", "docker-images", "git_hooks", "opencode_hooks", "templates")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(argv, check=True, capture_output=True, timeout=120)
    (made,) = out.glob("*.whl")
    return made


def tracked(*folders: str) -> set[str]:
    """The files of the checkout below `folders`, as git has them; in an export, as they lie there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return {line for line in listed.stdout.splitlines() if (ROOT / line).is_file()}


def test_the_wheel_holds_the_package_and_the_artifacts_and_nothing_else(wheel: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    package = {name.removeprefix("src/") for name in tracked("src/opencode_tasks")}
    artifacts = {f"opencode_tasks/_assets/{name}" for name in tracked(*ASSETS)}
    assert names == package | artifacts


def test_every_folder_of_artifacts_at_the_top_is_shipped() -> None:
    known = {"docker-images", "git_hooks", "opencode_hooks", "commands", "templates"}
    assert {name for name in known if (ROOT / name).is_dir()} == set(ASSETS)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh virtual environment with the wheel and what it depends on."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "--disable-pip-version-check"]
    argv = [*pip, "install", "--quiet", "--no-compile", str(wheel)]
    subprocess.run([str(a) for a in argv], check=True, capture_output=True, timeout=300)
    return venv / "bin"


def test_hooks_of_the_installed_wheel_run_in_a_repository(installed: Path, make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    tasks = installed / "opencode-tasks"
    run([tasks, "init"], cwd=repo.top, env=repo.env)
    hooks = repo.common / "hooks"
    assert (hooks / "post-checkout").stat().st_mode & 0o111
    assert f"python={installed.resolve()}/python" in (hooks / "opencode-tasks.sh").read_text()
    repo.git("checkout", "-b", "task/from-the-wheel")
    repo.commit("work", **{"work.txt": "done\n"})
    listed = run([tasks, "list-tasks", "--json"], cwd=repo.top, env=repo.env).json
    assert [(t["branch"], t["status"]) for t in listed["tasks"]] == [("task/from-the-wheel", "running")]
    assert f"Task-Id: {listed['tasks'][0]['id']}" in repo.git("log", "-1", "--format=%B").out


def test_a_module_of_the_user_never_runs_in_our_process(installed: Path, make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    run([installed / "opencode-tasks", "init"], cwd=repo.top, env=repo.env)
    for name in ("json.py", "subprocess.py", "opencode_tasks/__init__.py", "commands/__init__.py"):
        repo.write(name, "open('/tmp/owned-by-the-workspace', 'w').close()\nraise SystemExit('hijacked')\n")
    env = {"PYTHONPATH": str(repo.top)}
    done = repo.git("checkout", "-b", "task/hijack", env=env)
    assert "hijacked" not in done.err
    assert len(repo.ids()) == 1
