"""From the grammar's tree to commands. Every branch, loop and function is taken to run. Pure."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from opencode_tasks.policy.arguments import names
from opencode_tasks.policy.quoting import ansi, unescaped
from opencode_tasks.policy.script import LISTED, UNKNOWN, Simple

if TYPE_CHECKING:
    from tree_sitter import Node

# A text may ask for more of these than any real one does; then what follows is not looked at.
_DEEPEST, _MOST_NODES, _MOST_FED, _LONGEST_VALUE = 100, 60_000, 16, 512
_LISTERS = names("find fd fdfind ls grep egrep rg locate comm cat sort tail head")
_GIT_LISTS = names("ls-files ls-tree diff status clean")


class Reading:
    """`commands` grows in the order in which the text runs them, what stands inside a command's words before it."""

    def __init__(self, text_b: bytes) -> None:
        self._text_b = text_b
        self.commands: list[Simple] = []
        self.is_cut = False
        self._variables = {"HOME": "~", "PWD": "."}
        self._functions: set[str] = set()
        self._nodes = self._scopes = self._depth = 0
        self._fed: tuple[Simple, ...] = ()
        self._is_condition = False

    def walk(self, node: "Node", scope: tuple[int, ...]) -> None:
        self._nodes += 1
        if self._depth >= _DEEPEST or self._nodes > _MOST_NODES:
            self.is_cut = True
            return
        self._depth += 1
        try:
            _WALKS.get(node.type, Reading._inside)(self, node, scope)
        finally:
            self._depth -= 1

    def _said(self, node: "Node") -> str:
        return self._text_b[node.start_byte : node.end_byte].decode(errors="replace")

    def _inside(self, node: "Node", scope: tuple[int, ...]) -> None:
        for child in node.named_children:
            self.walk(child, scope)

    def _apart(self, node: "Node", scope: tuple[int, ...]) -> None:
        self._scopes += 1
        self._inside(node, (*scope, self._scopes))

    def _loop(self, node: "Node", scope: tuple[int, ...]) -> None:
        for child in node.named_children:
            before, self._is_condition = self._is_condition, child.type != "do_group"
            self.walk(child, scope)
            self._is_condition = before

    def _for(self, node: "Node", scope: tuple[int, ...]) -> None:
        name, *values = node.named_children
        found = [self.word(child, scope) for child in values if child.type != "do_group"]
        is_list = any(LISTED in text for text in found)
        self._variables[self._said(name)] = LISTED if is_list else found[0] if len(found) == 1 else UNKNOWN
        for child in values:
            if child.type == "do_group":
                self.walk(child, scope)

    def _pipeline(self, node: "Node", scope: tuple[int, ...]) -> None:
        self._stages(node.named_children, scope, self._fed)

    def _stages(self, stages: "list[Node]", scope: tuple[int, ...], fed: tuple[Simple, ...]) -> None:
        outer = self._fed
        for stage in stages:
            self._scopes += 1
            begin, self._fed = len(self.commands), fed
            self.walk(stage, (*scope, self._scopes))
            fed = (*fed, *self.commands[begin:])[-_MOST_FED:]
        self._fed = outer

    def _function(self, node: "Node", scope: tuple[int, ...]) -> None:
        name, *body = node.named_children
        self._functions.add(self._said(name))
        self._scopes += 1
        for child in body:
            self.walk(child, (*scope, self._scopes))

    def _redirected(self, node: "Node", scope: tuple[int, ...]) -> None:
        body = [child for child in node.named_children if not child.type.endswith("_redirect")]
        redirects = [child for child in node.named_children if child.type.endswith("_redirect")]
        if len(body) == 1 and body[0].type in {"command", "declaration_command"}:
            self._command(body[0], scope, redirects)
            return
        begin = len(self.commands)
        writes, text, then = self._redirects(redirects, scope)
        outer = self._fed
        if text is not None:
            self._fed = (*outer, Simple(("cat",), text=text))
        for child in body:
            self.walk(child, scope)
        self._fed = outer
        if writes or not body:
            self.commands.append(Simple(() if body else (":",), writes, text, scope=scope))
        self._stages(then, scope, tuple(self.commands[begin : begin + _MOST_FED]))

    def _command(self, node: "Node", scope: tuple[int, ...], redirects: "list[Node] | None" = None) -> None:
        begin = len(self.commands)
        around = list(redirects or ())
        words: list[str] = [node.children[0].type] if node.type == "declaration_command" else []
        for child in node.named_children:
            if child.type == "variable_assignment":
                self._assign(child, scope)
            elif child.type.endswith("_redirect"):
                around.append(child)
            elif child.type == "command_name":
                words += self._split(child.named_children[0] if child.named_child_count else child, scope)
            else:
                words += self._split(child, scope)
        writes, text, then = self._redirects(around, scope)
        if words and words[0] == "read":
            for name in words[1:]:
                self._variables[name] = LISTED if self._is_condition else UNKNOWN
        if not words or words[0] not in self._functions or writes:
            within = tuple(self.commands[begin : begin + _MOST_FED])
            self.commands.append(Simple(tuple(words), writes, text, self._fed, within, scope))
        if then:
            self._stages(then, scope, tuple(self.commands[begin : begin + _MOST_FED]))

    def _test(self, node: "Node", scope: tuple[int, ...]) -> None:
        self.word(node, scope)
        self.commands.append(Simple(("[",), scope=scope))

    def _redirects(
        self, nodes: "list[Node]", scope: tuple[int, ...]
    ) -> "tuple[tuple[str, ...], str | None, list[Node]]":
        """What is written to, what the text itself feeds in, and what stands behind the mark of a here-document."""
        writes: list[str] = []
        text: str | None = None
        then: list[Node] = []
        for node in nodes:
            operator = next((child.type for child in node.children if not child.is_named), "")
            if node.type == "herestring_redirect":
                text = "".join(self.word(child, scope) for child in node.named_children)
            elif node.type == "heredoc_redirect":
                text, more = self._document(node, scope)
                inner, _, rest = self._redirects([c for c in more if c.type.endswith("_redirect")], scope)
                writes += inner
                then += [*(c for c in more if not c.type.endswith("_redirect")), *rest]
            elif node.named_child_count:
                where = self.word(node.named_children[-1], scope)
                if ">" in operator and not (operator.endswith("&") and (where.isdigit() or where == "-")):
                    writes.append(where)
        return tuple(writes), text, then

    def _document(self, node: "Node", scope: tuple[int, ...]) -> "tuple[str, list[Node]]":
        """The text of a here-document, and what else stands on the line that begins it."""
        is_quoted, text, more = False, "", []
        for child in node.named_children:
            if child.type == "heredoc_start":
                is_quoted = any(mark in self._said(child) for mark in "'\"\\")
            elif child.type == "heredoc_body":
                text = self._said(child) if is_quoted else self.word(child, scope)
            elif child.type != "heredoc_end":
                more.append(child)
        return text, more

    def _assign(self, node: "Node", scope: tuple[int, ...]) -> None:
        name, *values = node.named_children
        begin = len(self.commands)
        found = "".join([self.word(child, scope) for child in values])
        is_list = bool(values) and values[0].type != "string" and found == LISTED
        found = LISTED if is_list or (found == UNKNOWN and _lists(self.commands[begin:])) else found
        is_known = len(found) <= _LONGEST_VALUE and "+=" not in self._said(node)
        self._variables[self._said(name)] = found if is_known else UNKNOWN

    def _split(self, node: "Node", scope: tuple[int, ...]) -> list[str]:
        """As the shell does with a variable outside of quotes."""
        found = self.word(node, scope)
        return found.split() if node.type in {"simple_expansion", "expansion"} else [found]

    def word(self, node: "Node", scope: tuple[int, ...]) -> str:
        """With its quotes removed, and what is known of its variables put in."""
        self._nodes += 1
        if self._depth >= _DEEPEST or self._nodes > _MOST_NODES:
            self.is_cut = True
            return UNKNOWN
        self._depth += 1
        try:
            return _WORDS.get(node.type, Reading._joined)(self, node, scope)
        finally:
            self._depth -= 1

    def _joined(self, node: "Node", scope: tuple[int, ...]) -> str:
        """Its parts, and the bytes between them: the grammar keeps no node for the space in `"$A $B"`."""
        if not node.named_child_count:
            return self._said(node)[1:-1] if node.type == "string" else unescaped(self._said(node))
        out, at = [], node.start_byte
        is_quoted = node.type in {"string", "heredoc_body"}
        for child in node.named_children:
            out.append(unescaped(self._text_b[at : child.start_byte].decode(errors="replace"), is_quoted=is_quoted))
            found = self.word(child, scope)
            out.append(UNKNOWN if is_quoted and found == LISTED and child.type == "command_substitution" else found)
            at = child.end_byte
        out.append(unescaped(self._text_b[at : node.end_byte].decode(errors="replace"), is_quoted=is_quoted))
        joined = "".join(out)
        if len(joined) > node.end_byte - node.start_byte + 16 * _LONGEST_VALUE:
            return UNKNOWN
        return joined[1:-1] if node.type == "string" else joined

    def _content(self, node: "Node", _: tuple[int, ...]) -> str:
        return unescaped(self._said(node), is_quoted=True)

    def _variable(self, node: "Node", scope: tuple[int, ...]) -> str:
        parts = node.named_children
        known = self._variables.get(self._said(parts[0])) if parts else None
        default = [self.word(child, scope) for child in parts[1:]]
        if known is not None or not default or self._said(node).find(":-") < 0:
            return UNKNOWN if known is None else known
        return default[-1]

    def _substituted(self, node: "Node", scope: tuple[int, ...]) -> str:
        begin = len(self.commands)
        outer, self._fed = self._fed, ()
        self._apart(node, scope)
        self._fed = outer
        inner = self.commands[begin:]
        if len(inner) == 1 and inner[0].words == ("pwd",):
            return "."
        return LISTED if _lists(inner) else UNKNOWN


_WALKS: "dict[str, Callable[[Reading, Node, tuple[int, ...]], None]]" = {
    "command": Reading._command,
    "declaration_command": Reading._command,
    "unset_command": lambda *_: None,
    "test_command": Reading._test,
    "redirected_statement": Reading._redirected,
    "pipeline": Reading._pipeline,
    "subshell": Reading._apart,
    "command_substitution": Reading._apart,
    "process_substitution": Reading._apart,
    "while_statement": Reading._loop,
    "for_statement": Reading._for,
    "function_definition": Reading._function,
    "variable_assignment": Reading._assign,
    "comment": lambda *_: None,
}
_WORDS: "dict[str, Callable[[Reading, Node, tuple[int, ...]], str]]" = {
    "raw_string": lambda self, node, _: self._said(node)[1:-1],
    "ansi_c_string": lambda self, node, _: ansi(self._said(node)[2:-1]),
    "string_content": Reading._content,
    "heredoc_content": Reading._content,
    "simple_expansion": Reading._variable,
    "expansion": Reading._variable,
    "command_substitution": Reading._substituted,
    "process_substitution": Reading._substituted,
}


def _lists(commands: list[Simple]) -> bool:
    """Whether what they print is, in all likelihood, names of files."""
    for command in commands:
        name, *rest = command.words or ("",)
        if name in _LISTERS or (name == "git" and not _GIT_LISTS.isdisjoint(rest)):
            return True
    return False
