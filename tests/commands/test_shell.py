"""`shell`: a real terminal, the real engine."""

import pytest

from tests.commands.test_exec import eventually, executions, open_terminal, processes
from tests.conftest import Repo


@pytest.fixture
def task_repo(live_repo: Repo) -> Repo:
    live_repo.git("checkout", "--quiet", "-b", "task/shell")
    live_repo.tasks("exec", "--", "true")
    return live_repo


def test_an_interactive_shell_in_the_workspace(task_repo: Repo) -> None:
    for terminal in open_terminal(task_repo, "shell"):
        terminal.type('echo "in=$PWD bash=${BASH_VERSION:+yes} flags=$-"\r')
        found = terminal.expect(r"in=(/\S+) bash=(\S+) flags=(\S+)\r\n")
        assert (found[1], found[2]) == (str(task_repo.top), "yes")
        assert "i" in found[3]
        terminal.type("echo made > new; exit 5\r")
        assert terminal.process.wait(timeout=20) == 5
    assert (task_repo.top / "new").read_text() == "made\n"
    assert executions(task_repo)[-1]["exit_code"] == 5
    eventually(lambda: not processes(task_repo), "the container is quiet")


def test_ctrl_c_ends_what_runs_and_not_the_shell(task_repo: Repo) -> None:
    for terminal in open_terminal(task_repo, "shell"):
        terminal.type("sleep 1000\r")
        eventually(lambda: "sleep 1000" in processes(task_repo), "sleep runs")
        terminal.type("\x03")
        terminal.type("echo still=$((40 + 2))\r")
        terminal.expect("still=42")
        # Not Ctrl-D: typed before bash has its terminal back, it is lost in any shell.
        terminal.type("exit 4\r")
        assert terminal.process.wait(timeout=20) == 4


def test_a_closed_terminal_leaves_nothing_running(task_repo: Repo) -> None:
    for terminal in open_terminal(task_repo, "shell"):
        terminal.type("sleep 1000\r")
        eventually(lambda: "sleep 1000" in processes(task_repo), "sleep runs")
        terminal.hang_up()
        assert terminal.process.wait(timeout=20) != 0
    eventually(lambda: not processes(task_repo), "the container is quiet")


def test_without_a_terminal_it_reads_its_commands(task_repo: Repo) -> None:
    ran = task_repo.tasks("shell", stdin="pwd\nexit 3\n", check=False)
    assert (ran.code, ran.out) == (3, f"{task_repo.top}\n")


def test_of_another_task_it_refuses(task_repo: Repo) -> None:
    task_repo.git("checkout", "--quiet", "main")
    ran = task_repo.tasks("shell", "task/shell", "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "conflict")
    assert ran.json["error"]["hint"] == "git checkout task/shell"


def test_without_an_engine_it_says_so(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "task/none")
    ran = repo.tasks("shell", "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "no_engine")
    assert ran.json["error"]["hint"]
