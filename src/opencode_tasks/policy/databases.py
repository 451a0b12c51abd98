"""Programs that change a database: its schema, or all that is in it. Pure."""

import re
from collections.abc import Iterable, Mapping

from opencode_tasks.policy.arguments import given, names
from opencode_tasks.policy.deleting import Rule
from opencode_tasks.policy.findings import Look
from opencode_tasks.policy.wrappers import Inner

_Words = tuple[str, ...]
CLIENTS = names("psql mysql mariadb sqlite3 clickhouse-client duckdb cockroach sqlcmd")
_LOSES = "drop|reset|fresh|wipe|flush|refresh|clean|truncate_all|purge"
_MIGRATES = (
    rf"(?:(?:db|database|prisma|knex|typeorm|sequelize|drizzle|migrations?|schema)[:_.-]?)?(?:migrate|migrations?)"
    rf"(?:[:_.-](?:up|down|run|deploy|dev|latest|rollback|redo|revert|undo|all|prod|test|{_LOSES}))*\Z"
    rf"|(?:db|database|prisma|ecto|schema|doctrine:schema)[:_.-](?:push|migrate|rollback|upgrade|load|sync|update|{_LOSES})"
    r"(?:[:_.-].*)?\Z|doctrine:migrations:(?:migrate|execute)\Z|ecto\.(?:migrate|rollback|drop|reset)\Z"
    r"|(?:db:)?(?:schema|structure):(?:load|sync|drop)\Z"
)
_LOSING = rf"(?:^|[:_.-])(?:{_LOSES})\b|dropAll"
_LOOKS = r"(?:status|list|check|diff|generate|make|create|show|plan|current|history)\Z"


def migrated(look: Look, words: Iterable[str], *, is_lost: bool = False) -> None:
    look.label("migration")
    if is_lost:
        look.found.lost("a database", " ".join(words))


def task(rest: _Words, look: Look) -> Iterable[Inner]:
    """Tasks of rake, of artisan, of package.json: their names say what they do."""
    for word in rest:
        if word.startswith("-") or not re.match(_MIGRATES, word) or re.search(_LOOKS, word):
            continue
        migrated(look, rest, is_lost=re.search(_LOSING, word) is not None)
    return ()


def _alembic(rest: _Words, look: Look) -> Iterable[Inner]:
    verb = "".join(given(rest, with_value="cnx").operands[:1])
    if verb in {"upgrade", "downgrade", "stamp"}:
        migrated(look, rest)
    return ()


def _flask(rest: _Words, look: Look) -> Iterable[Inner]:
    operands = given(rest, with_value="Ae", valued=("--app",)).operands
    if operands[:1] == ("db",) and operands[1:2] in (("upgrade",), ("downgrade",)):
        migrated(look, rest)
    return ()


def _django(rest: _Words, look: Look) -> Iterable[Inner]:
    verb = "".join(given(rest).operands[:1])
    if verb in {"flush", "reset_db"}:
        migrated(look, rest, is_lost=True)
    elif verb == "migrate" and not {"--plan", "--check", "--list", "-l"} & set(rest):
        migrated(look, rest)
    return ()


def _prisma(rest: _Words, look: Look) -> Iterable[Inner]:
    verbs = given(rest).operands[:2]
    if verbs in (("migrate", "dev"), ("migrate", "deploy"), ("migrate", "resolve"), ("db", "execute")):
        migrated(look, rest)
    elif verbs in (("migrate", "reset"), ("db", "push")):
        loses = verbs[1] == "reset" or bool({"--accept-data-loss", "--force-reset"} & set(rest))
        migrated(look, ("prisma", *rest), is_lost=loses)
    return ()


def _verbs(*wanted: str, losing: str = "drop reset clean dropAll wipe fresh") -> Rule:
    """A migration when one of its words is one of these."""
    known, lost = frozenset(wanted), frozenset(losing.split())

    def look_at(rest: _Words, look: Look) -> Iterable[Inner]:
        said = (known | lost) & set(rest)
        if said:
            migrated(look, rest, is_lost=bool(said & lost))
        return ()

    return look_at


_LOSING_SQL = r"\b(?:drop\s+(?:table|database|schema|index|view|column|type|user)|truncate|delete\s+from)\b"
_SCHEMA_SQL = r"\b(?:alter|create)\s+(?:table|database|index|schema|view|type)\b"


def sql(words: _Words, text: str | None, look: Look) -> None:
    """`text`: what a client reads."""
    said = " ".join((*words, text or ""))
    if re.search(_LOSING_SQL, said, re.IGNORECASE):
        migrated(look, words, is_lost=True)
    elif re.search(_SCHEMA_SQL, said, re.IGNORECASE):
        migrated(look, words)


def _dropped(rest: _Words, look: Look) -> Iterable[Inner]:
    migrated(look, ("dropdb", *rest), is_lost=True)
    return ()


RULES: Mapping[str, Rule] = {
    "mix": task,
    "rails": task,
    "rake": task,
    "artisan": task,
    "console": task,
    "alembic": _alembic,
    "flask": _flask,
    "manage.py": _django,
    "django-admin": _django,
    "prisma": _prisma,
    "drizzle-kit": _verbs("push", "migrate"),
    "knex": task,
    "sequelize": task,
    "sequelize-cli": task,
    "typeorm": _verbs("migration:run", "migration:revert", "schema:sync", losing="schema:drop"),
    "diesel": _verbs("run", "revert", "redo"),
    "sqlx": _verbs("run", "revert"),
    "dbmate": _verbs("up", "migrate", "down", "rollback"),
    "goose": _verbs("up", "down", "up-to", "down-to", "redo"),
    "migrate": _verbs("up", "down", "goto", "force"),
    "flyway": _verbs("migrate", "undo", "repair"),
    "liquibase": _verbs("update", "rollback"),
    "supabase": _verbs("push", "up"),
    "wrangler": _verbs("apply"),
    "dropdb": _dropped,
}
