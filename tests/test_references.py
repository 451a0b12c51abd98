"""What `[environment]` and `[secrets]` may say."""

from pathlib import Path

import pytest

from opencode_tasks import config
from opencode_tasks.config_sections import Config
from opencode_tasks.errors import TaskError
from opencode_tasks.references import Reference


def load(top: Path, content: str) -> Config:
    (top / ".opencode").mkdir(exist_ok=True)
    (top / config.FILE).write_text(content)
    return config.load(top, {"OPENCODE_TASKS_ENVIRONMENT_A": "b", "OPENCODE_TASKS_SECRETS": "x"})


def test_plain_values_and_references(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        '[environment]\nA = "1"\nPATH = "/x:/bin"\nURL = "https://env://x"\nT = "env://HOST_T"\n'
        '[secrets]\nkey = "file://~/.k"\n"a.b-c" = "file:///x/y"\nrel = "file://conf/x"\n',
    )
    assert dict(loaded.environment) == {"A": "1", "PATH": "/x:/bin", "URL": "https://env://x", "T": "env://HOST_T"}
    assert loaded.references == [
        Reference("environment", "T", "env://HOST_T"),
        Reference("secrets", "key", "file://~/.k"),
        Reference("secrets", "a.b-c", "file:///x/y"),
        Reference("secrets", "rel", "file://conf/x"),
    ]
    assert [(r.variable, r.path) for r in loaded.references[:2]] == [("HOST_T", "env://HOST_T"), (None, "~/.k")]


def test_without_tables_there_is_nothing(tmp_path: Path) -> None:
    loaded = load(tmp_path, "[environment]\n[secrets]\n")
    assert loaded == Config()
    assert loaded.references == []


_BAD = [
    ("environment = 1", "environment is not a table", "[environment]"),
    ("[environment]\nA = 1", "A is no string", "quotes"),
    ("[environment]\nA = ['x']", "A is no string", "quotes"),
    ("[environment]\n1A = 'x'", "no name of a variable", "letters"),
    ("[environment]\n'A B' = 'x'", "no name of a variable", "letters"),
    ('[environment]\n"A\\n" = "x"', "no name of a variable", "letters"),
    ("[environment]\n'' = 'x'", "no name of a variable", "letters"),
    ("[environment]\nHOME = '/x'", "set by opencode-tasks", "another name"),
    ("[environment]\nOPENCODE_TASK_ID = 'x'", "set by opencode-tasks", "another name"),
    ("[environment]\nOPENCODE_TASKS_EXEC = 'x'", "set by opencode-tasks", "another name"),
    ("[environment]\nhttp_proxy = 'x'", "set by opencode-tasks", "another name"),
    ("[environment]\nHTTPS_PROXY = 'x'", "set by opencode-tasks", "another name"),
    ("[environment]\nNo_Proxy = 'x'", "set by opencode-tasks", "another name"),
    ("[environment]\nA = 'env://'", "names no variable", "env://NAME"),
    ("[environment]\nA = 'env://A B'", "names no variable", "env://NAME"),
    ("[environment]\nA = 'file://'", "names no file", "file://"),
    ("[environment]\nA = 'file:///'", "names no file", "file://"),
    ("[environment]\nA = 'file://x/'", "names no file", "file://"),
    ("[environment]\nA = 'file://~root/x'", "names no file", "file://"),
    ('[environment]\nA = "file://x\\u001b"', "names no file", "file://"),
    ('[environment]\nA = "x\\u0000"', "NUL", "no variable"),
    ("[secrets]\nkey = 'hunter2'", "no reference", "env://KEY"),
    ("[secrets]\n'../key' = 'env://A'", "no name of a file", "letters"),
    ("[secrets]\n'.key' = 'env://A'", "no name of a file", "letters"),
    ("[secrets]\n'-rf' = 'env://A'", "no name of a file", "letters"),
    ("[secrets]\n'a b' = 'env://A'", "no name of a file", "letters"),
    ("[secrets]\n'$x' = 'env://A'", "no name of a file", "letters"),
    ("[enviroment]\nA = 'x'", "unknown key enviroment", "environment"),
    ("[environment]\n" + "\n".join(f"A{n} = 'x'" for n in range(65)), "65 entries", "64"),
]


@pytest.mark.parametrize(("content", "said", "next_step"), _BAD)
def test_what_they_may_not_say(tmp_path: Path, content: str, said: str, next_step: str) -> None:
    with pytest.raises(TaskError) as refused:
        load(tmp_path, content)
    assert refused.value.code == "config"
    assert said in refused.value.message
    assert str(config.FILE) in refused.value.message
    assert next_step in refused.value.hint
    assert "hunter2" not in refused.value.message
