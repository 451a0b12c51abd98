"""OpenCode is set up in every work tree by `init`, and everything is as it was after `uninstall`, to the byte."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks import jsonc
from tests.commands.test_init import installed_parts, tree
from tests.conftest import Repo, another, run

MakeRepo = Callable[..., Repo]
PLUGIN = ".opencode/plugins/opencode-tasks.js"
THEIRS = '{\r\n\t// mine\r\n\t"model": "x/y", // best\r\n\t"shell" : "zsh",\r\n}'


def shell(repo: Repo) -> str:
    return str(repo.common / "opencode-tasks" / "bin" / "tasksh")


def said(path: Path) -> dict[str, object]:
    found: dict[str, object] = jsonc.loads(path.read_text())
    return found


def status(repo: Repo) -> str:
    return repo.git("status", "--porcelain", "-uall").out


def test_every_work_tree_has_it_and_loses_it(repo: Repo, tmp_path: Path) -> None:
    ours = {name: content for name, content in tree(repo.top).items() if name.startswith(".opencode/")}
    assert {PLUGIN, ".opencode/opencode.jsonc"} < ours.keys()
    assert said(repo.top / ".opencode/opencode.jsonc")["shell"] == shell(repo)
    assert run([shell(repo), "-c", 'echo "$SHELL" "$1"; exit 7', "sh", "a b"], cwd=tmp_path, check=False).code == 7
    made = repo.tasks("create-task", "Beside", "--worktree", "--json").json
    beside = Repo(Path(made["workspace"]["path"]), repo.env)
    repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "by hand"))
    by_hand = Repo(tmp_path / "by hand", repo.env)
    unseen = Repo(tmp_path / "unseen", repo.env)
    repo.git("worktree", "add", "--quiet", "--detach", str(unseen.top), env={"OPENCODE_TASKS_HOOKS": "off"})
    assert not (unseen.top / PLUGIN).exists()
    unseen.tasks("list-tasks")
    for work_tree in (beside, by_hand, unseen):
        found = tree(work_tree.top)
        assert {name: found[name] for name in ours if name in found} == ours
        assert status(work_tree) == ""
    assert ".opencode" not in repo.tasks("init").out
    (beside.top / ".opencode" / "node_modules").mkdir()
    (beside.top / ".opencode" / ".gitignore").write_text("node_modules\npackage.json\n.gitignore\n")
    repo.tasks("cleanup-task", made["id"])
    assert not beside.top.exists()
    repo.tasks("cleanup-task", "--undo", made["id"])
    assert (beside.top / PLUGIN).exists()
    repo.tasks("cleanup-task", made["id"])
    repo.tasks("uninstall")
    for work_tree in (repo, by_hand, unseen):
        assert not (work_tree.top / PLUGIN).exists()
        assert list((work_tree.top / ".opencode").iterdir()) == [work_tree.top / ".opencode" / "tasks.toml"]
        assert status(work_tree) == ""


def test_no_agent_can_be_the_first_to_write_what_opencode_obeys(make_repo: MakeRepo) -> None:
    """At the root, where nobody has them: OpenCode would start what they name, on the host."""
    repo, names = make_repo(), ("opencode.json", "opencode.jsonc")
    repo.commit("theirs", **{"opencode.json": '{"model": "x/y"}\n'})
    repo.git("checkout", "--quiet", "-b", "without")
    repo.git("rm", "--quiet", "opencode.json")
    repo.commit("gone")
    repo.tasks("init")
    for name in names:
        assert said(repo.top / name).keys() == {"$schema"}
    assert status(repo) == "?? .opencode/tasks.toml\n"
    (repo.top / "opencode.jsonc").write_text('{"theme": "mine"}\n')
    repo.git("checkout", "--quiet", "main")
    assert said(repo.top / "opencode.json") == {"model": "x/y"}
    repo.git("checkout", "--quiet", "-b", "task/more", "without")
    assert said(repo.top / "opencode.json").keys() == {"$schema"}
    repo.git("checkout", "--quiet", "without")
    repo.tasks("init")
    assert said(repo.top / "opencode.jsonc") == {"theme": "mine"}
    repo.tasks("uninstall")
    assert [(repo.top / name).exists() for name in names] == [False, True]
    assert status(repo) == "?? opencode.jsonc\n"


def test_what_was_changed_in_a_worktree_is_not_lost_with_it(repo: Repo) -> None:
    made = repo.tasks("create-task", "Beside", "--worktree", "--json").json
    plugin = Path(made["workspace"]["path"], PLUGIN)
    with plugin.open("a") as f:
        f.write("// mine\n")
    done = repo.tasks("cleanup-task", made["id"], "--json", check=False)
    assert done.json["error"]["code"] == "unsaved_work"
    assert PLUGIN in done.json["error"]["message"]


@pytest.mark.parametrize("name", ["opencode.jsonc", "opencode.json"])
def test_somebodys_configuration_keeps_every_byte(make_repo: MakeRepo, name: str) -> None:
    repo = make_repo()
    path = repo.top / ".opencode" / name
    path.parent.mkdir()
    path.write_bytes(THEIRS.encode())
    path.chmod(0o600)
    before = installed_parts(repo)
    repo.tasks("init")
    after = path.read_bytes()
    assert after.decode() == THEIRS.replace('"zsh"', json.dumps(shell(repo)))
    (backup,) = (repo.common / "opencode-tasks" / "opencode").iterdir()
    assert backup.read_bytes() == THEIRS.encode()
    assert status(repo).splitlines() == [f"?? .opencode/{name}", "?? .opencode/tasks.toml"]
    assert repo.tasks("init", "--json").json["changed"] == []
    assert path.read_bytes() == after
    made = repo.tasks("create-task", "Beside", "--worktree", "--json").json
    beside = Repo(Path(made["workspace"]["path"]), repo.env)
    (other,) = (beside.top / ".opencode").glob("opencode.json*")
    assert (other.name != "opencode.jsonc") == (name == "opencode.jsonc"), "excluding that would hide theirs"
    assert said(other)["shell"] == shell(repo)
    assert status(beside) == ""
    repo.tasks("cleanup-task", made["id"])
    repo.tasks("uninstall", "--purge")
    assert {n: v for n, v in installed_parts(repo).items() if "packed-refs" not in n} == before
    repo.tasks("init")
    path.write_bytes(path.read_bytes().replace(b"// best", b"// second best"))
    repo.tasks("uninstall")
    assert path.read_bytes() == THEIRS.replace("// best", "// second best").encode()


def test_a_configuration_that_git_has_is_never_changed(make_repo: MakeRepo) -> None:
    repo = make_repo()
    json_, jsonc_ = (repo.top / ".opencode" / f"opencode.{kind}" for kind in ("json", "jsonc"))
    repo.commit("theirs", **{".opencode/opencode.json": '{"shell": "zsh"}'})
    repo.tasks("init")
    assert said(jsonc_)["shell"] == shell(repo)
    repo.commit("settings")
    assert status(repo) == ""
    repo.git("checkout", "--quiet", "-b", "other")
    jsonc_.write_text('{"model": "x/y"}')
    repo.git("rm", "--quiet", ".opencode/opencode.json")
    repo.git("add", "--force", ".opencode/opencode.jsonc")
    repo.git("commit", "--quiet", "-m", "the other file")
    repo.git("checkout", "--quiet", "-b", "task/one", "main")
    assert said(jsonc_)["shell"] == shell(repo), "what the checkout took is there again"
    done = repo.git("checkout", "--quiet", "-B", "task/one", "other")  # over our file, which git ignores
    assert said(jsonc_) == {"model": "x/y"}
    assert "shell is not set" in done.err
    repo.tasks("init")
    assert said(json_)["shell"] == shell(repo)
    repo.commit("sets it", **{".opencode/opencode.jsonc": '{"shell": "fish"}'})
    json_.unlink()
    assert "left alone" in repo.tasks("init").out
    assert status(repo) == ""


def test_files_of_others_stay_and_are_told(make_repo: MakeRepo) -> None:
    repo = make_repo()
    mine = repo.write(PLUGIN, "export default {}\n")
    before = installed_parts(repo)
    assert f"{mine} is not ours and was left alone" in repo.tasks("init").out
    assert mine.read_text() == "export default {}\n"
    assert f"?? {PLUGIN}" in status(repo)
    assert "opencode files" in {
        c["name"] for c in repo.tasks("doctor", "--json", check=False).json["checks"] if not c["ok"]
    }
    repo.tasks("uninstall")
    assert installed_parts(repo) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("opencode.jsonc", '{\n"a": 1\n"b": 2}', "line 3"),
        ("opencode.json", '{"a": 1,\n"a": 2}', "'a' stands there twice: line 2"),
        ("opencode.json", "[]", "it is no object"),
        ("opencode.jsonc", '{\n"a": "\udcff"}', "not UTF-8: line 2"),
        ("opencode.jsonc", " " * (1 << 20) + "{}", "more than 1 MiB"),
        ("opencode.jsonc", None, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named_and_left(
    make_repo: MakeRepo, name: str, content: str | None, message: str
) -> None:
    repo = make_repo()
    path = repo.top / ".opencode" / name
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.encode(errors="surrogateescape"))
    before = installed_parts(repo)
    done = repo.tasks("init", "--json", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, "config")
    assert str(path) in done.json["error"]["message"]
    assert message in done.json["error"]["message"]
    assert {n: v for n, v in installed_parts(repo).items() if n.startswith(f".opencode/{name}")} == {
        n: v for n, v in before.items() if n.startswith(f".opencode/{name}")
    }
    repo.git("checkout", "--quiet", "-b", "task/works")  # all the rest is in place
    assert len(repo.ids()) == 1
    repo.git("checkout", "--quiet", "main")
    repo.tasks("uninstall")
    assert installed_parts(repo) == before


def test_links_are_not_followed(make_repo: MakeRepo, tmp_path: Path) -> None:
    repo = make_repo()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "opencode.jsonc").write_text("{}")
    (repo.top / ".opencode").mkdir()
    (repo.top / ".opencode" / "plugins").symlink_to(outside)
    done = repo.tasks("init", "--json", check=False)
    assert "plugins is a symbolic link" in done.json["error"]["message"]
    (repo.top / ".opencode" / "plugins").unlink()
    (repo.top / ".opencode" / "commands").write_text("")
    done = repo.tasks("init", "--json", check=False)
    assert "commands is no directory" in done.json["error"]["message"]
    (repo.top / ".opencode" / "commands").unlink()
    (repo.top / ".opencode" / "opencode.jsonc").symlink_to(outside / "opencode.jsonc")
    repo.tasks("init")
    assert said(repo.top / ".opencode/opencode.json")["shell"] == shell(repo)
    repo.tasks("uninstall")
    assert tree(outside) == {"opencode.jsonc": ((outside / "opencode.jsonc").stat().st_mode, b"{}")}


def test_it_can_be_left_out_and_that_is_remembered(make_repo: MakeRepo) -> None:
    repo = make_repo()
    repo.tasks("init", "--no-opencode")
    before = tree(repo.top / ".opencode")
    assert list(before) == ["tasks.toml"]
    repo.tasks("init")
    made = repo.tasks("create-task", "Beside", "--worktree", "--json").json
    assert tree(repo.top / ".opencode") == before
    assert not Path(made["workspace"]["path"], ".opencode").exists()
    repo.tasks("init", "--opencode")
    assert Path(made["workspace"]["path"], PLUGIN).exists()
    repo.tasks("init", "--no-opencode")
    assert tree(repo.top / ".opencode") == before
    assert "/.opencode/" not in (repo.common / "info" / "exclude").read_text()


_DIES = """
import os, sys
left = [{step}]
def count(event, args):
    if event in ("os.rename", "os.mkdir", "os.remove", "os.chmod") and "opencode" in str(args):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
sys.addaudithook(count)
"""


def test_a_kill_at_any_step_leaves_nothing_unknown(make_repo: MakeRepo, tmp_path: Path) -> None:
    base = make_repo("base")
    (base.top / ".opencode").mkdir()
    (base.top / ".opencode" / "opencode.jsonc").write_text(THEIRS)
    base.tasks("init", "--no-opencode")
    before = installed_parts(base)
    for command in ("init", "uninstall"):
        killed, step = True, 0
        while killed:
            shutil.copytree(base.top, tmp_path / "copy", symlinks=True)
            repo = Repo(tmp_path / "copy", base.env)
            if command == "uninstall":
                repo.tasks("init", "--opencode")
            option = "--opencode" if command == "init" else "--no-opencode"
            done = repo.tasks("init", option, check=False, before=_DIES.format(step=step))
            killed = done.code == 9
            assert killed or done.code == 0
            if step % 2 and command == "init":
                repo.tasks("init", "--opencode")
                assert repo.tasks("init", "--json").json["changed"] == []
                assert said(repo.top / ".opencode/opencode.jsonc")["shell"] == shell(repo)
            repo.tasks("init", "--no-opencode")
            assert installed_parts(repo) == before, step
            shutil.rmtree(repo.top)
            step += 3  # of each file there are as many
        assert step > 4


def test_a_repository_that_was_moved(initialised: Path, tmp_path: Path) -> None:
    another(initialised, tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "second")
    moved = Repo(tmp_path / "second")
    names = {c["name"] for c in moved.tasks("doctor", "--json", check=False).json["checks"] if not c["ok"]}
    assert "opencode shell" in names
    moved.tasks("init")
    assert said(moved.top / ".opencode/opencode.jsonc")["shell"] == shell(moved)
    assert status(moved) == ""


@pytest.mark.parametrize("how", ["new", "theirs", "link", "named"])
def test_for_all_projects_of_the_user(
    isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder = isolated / ".config" / "opencode"
    if how == "named":
        folder = tmp_path / "named"
        monkeypatch.setenv("OPENCODE_CONFIG_DIR", str(folder))
    if how in ("theirs", "link"):
        folder.mkdir(parents=True)
        dotfiles = isolated / "dotfiles.json"
        (dotfiles if how == "link" else folder / "opencode.json").write_text(THEIRS)
        if how == "link":
            (folder / "opencode.json").symlink_to(dotfiles)
    before = (tree(isolated), tree(tmp_path))
    outside = Repo(tmp_path)
    launcher = str(isolated / ".local/share/opencode-tasks/bin/tasksh")
    assert outside.tasks("init", "--global", "--json").json["changed"]
    assert outside.tasks("init", "--global", "--json").json["changed"] == []
    name = "opencode.json" if how in ("theirs", "link") else "opencode.jsonc"
    assert said(folder / name)["shell"] == launcher
    assert (folder / name).is_symlink() == (how == "link")
    assert (folder / "plugins" / "opencode-tasks.js").exists()
    assert run([launcher, "-c", "exit 7"], cwd=tmp_path, check=False).code == 7
    outside.tasks("uninstall", "--global")
    assert (tree(isolated), tree(tmp_path)) == before
    assert outside.tasks("uninstall", "--global", "--json").json["changed"] == []
