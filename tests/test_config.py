import tomllib
from pathlib import Path

import pytest
import tomli_w

from opencode_tasks import config
from opencode_tasks.config_sections import Config
from opencode_tasks.errors import TaskError
from tests.conftest import Repo


def _written(top: Path, content: str | bytes) -> Path:
    path = top / config.FILE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert config.load(tmp_path, {}) == Config()
    assert config.load(tmp_path, {}).branch.prefix == "task/"


def test_what_init_writes_are_the_defaults(tmp_path: Path) -> None:
    _written(tmp_path, tomli_w.dumps(config.defaults()))
    assert config.load(tmp_path, {}) == Config()
    assert tomllib.loads(tomli_w.dumps(config.defaults()))["container"]["autostart"] is True


def test_environment_over_file_over_default(tmp_path: Path) -> None:
    _written(tmp_path, '[branch]\nprefix = "file/"\n[container]\nimage = "file"\n')
    loaded = config.load(tmp_path, {"OPENCODE_TASKS_BRANCH_PREFIX": "env/"})
    assert (loaded.branch.prefix, loaded.container.image, loaded.container.limits) == ("env/", "file", "default")


@pytest.mark.parametrize(
    ("value", "truth"),
    [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("false", False), ("", False)],
)
def test_truth_in_the_environment(tmp_path: Path, value: str, truth: bool) -> None:
    loaded = config.load(tmp_path, {"OPENCODE_TASKS_CONTAINER_AUTOSTART": value})
    assert loaded.container.autostart is truth


def test_other_names_in_the_environment_are_not_ours(tmp_path: Path) -> None:
    environ = {"OPENCODE_TASKS_HOOKS": "off", "BRANCH_PREFIX": "x/", "OPENCODE_TASKS_BRANCH": "y/"}
    assert config.load(tmp_path, environ) == Config()


_BAD = [
    ("branch = 'x'", "branch is not a table", "[branch]"),
    ("[branch", "not valid TOML", "mend"),
    (b"\xff\xfe", "not valid TOML", "mend"),
    ("[brunch]\nprefix = 'x/'", "unknown key brunch", "branch"),
    ("[branch]\nprefx = 'x/'", "unknown key branch.prefx", "branch.prefix"),
    ("[container]\nautostrat = true", "unknown key container.autostrat", "container.autostart"),
    ("[plan]\nmatch_words = 'no'", "must be true or false", "true"),
    ("[plan]\nmatch_word = true", "unknown key plan.match_word", "plan.match_words"),
    ("[branch]\nprefix = 3", "must be a string", '"task/"'),
    ("[container]\nautostart = 'yes'", "must be true or false", "true"),
    ("[container]\nautostart = 1", "must be true or false", "true"),
    ("[branch]\nprefix = ''", "cannot begin a branch name", "task/"),
    ("[branch]\nprefix = '-x/'", "cannot begin a branch name", "task/"),
    ("[branch]\nprefix = 'a b/'", "cannot begin a branch name", "task/"),
    ('[branch]\nprefix = "a\\nb/"', "cannot begin a branch name", "task/"),
    ("[branch]\nprefix = 'a*/'", "cannot begin a branch name", "task/"),
    ("[workspace]\nworktrees = '../{repo}'", "is no pattern", "{repository}"),
    ("[workspace]\nworktrees = '../{'", "is no pattern", "{repository}"),
    ("[workspace]\nworktrees = '../{0}'", "is no pattern", "{repository}"),
    ("[workspace]\nworktrees = '../{id.x}'", "is no pattern", "{repository}"),
]


@pytest.mark.parametrize(("content", "said", "next_step"), _BAD)
def test_bad_settings_name_the_file_and_the_way_out(
    tmp_path: Path, content: str | bytes, said: str, next_step: str
) -> None:
    path = _written(tmp_path, content)
    with pytest.raises(TaskError) as refused:
        config.load(tmp_path, {})
    assert refused.value.code == "config"
    assert str(path) in refused.value.message
    assert said in refused.value.message
    assert next_step in refused.value.hint


def test_a_section_that_is_no_table_is_refused_whatever_the_environment_says(tmp_path: Path) -> None:
    _written(tmp_path, "branch = 'x'")
    with pytest.raises(TaskError, match="not a table"):
        config.load(tmp_path, {"OPENCODE_TASKS_BRANCH_PREFIX": "env/"})


@pytest.mark.parametrize("kind", ["link", "directory", "parent is a file"])
def test_settings_that_are_no_ordinary_file_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / config.FILE
    if kind == "parent is a file":
        path.parent.write_text("")
    else:
        path.parent.mkdir()
    if kind == "link":
        (tmp_path / "secret").write_text("[branch]\nprefix = 'stolen/'")
        path.symlink_to(tmp_path / "secret")
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(TaskError) as refused:
        config.load(tmp_path, {})
    assert refused.value.code == "config"
    assert str(path) in refused.value.message
    assert refused.value.hint


def test_settings_with_an_error_stop_a_command_and_not_git(repo: Repo) -> None:
    before = repo.write(".opencode/tasks.toml", "[branch]\nprefx = 'x/'\n").read_bytes()
    refused = repo.tasks("create-task", "Fix it", "--json", check=False)
    assert (refused.code, refused.json["error"]["code"]) == (1, "config")
    assert "branch.prefix" in refused.json["error"]["hint"]
    done = repo.git("checkout", "-b", "task/anyway")
    assert "unknown key branch.prefx" in done.err
    assert repo.branch == "task/anyway"
    assert "going on without it" in done.err
    assert [task_id.rpartition("-")[0] for task_id in repo.ids()] == ["anyway"]
    assert (repo.top / config.FILE).read_bytes() == before


def test_reading_settings_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / config.FILE).mkdir(parents=True)
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(TaskError):
            config.load(tmp_path, {})
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_what_else_is_protected(tmp_path: Path) -> None:
    _written(tmp_path, '[container]\nprotected = ["ci", "tools/run.sh"]\n')
    assert config.load(tmp_path, {}).container.protected == ("ci", "tools/run.sh")
    from_environ = config.load(tmp_path, {"OPENCODE_TASKS_CONTAINER_PROTECTED": "a, b/c,,"})
    assert from_environ.container.protected == ("a", "b/c")


@pytest.mark.parametrize(
    "said", ['"ci"', "[1]", '["/etc"]', '["../x"]', '["a/../../x"]', '[""]', '["."]', '["a\\u0000b"]']
)
def test_what_cannot_be_protected(tmp_path: Path, said: str) -> None:
    _written(tmp_path, f"[container]\nprotected = {said}\n")
    with pytest.raises(TaskError, match=r"container\.protected") as refused:
        config.load(tmp_path, {})
    assert refused.value.code == "config"
