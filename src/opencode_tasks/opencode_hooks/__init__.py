"""One module per hook of OpenCode's lifecycle, and the shell that it runs an agent's commands in.

`opencode_hooks/opencode-tasks.js` is OpenCode's side: it keeps one child of ours (`bridge`) and asks it by these names.
"""

# A literal table: what can be asked for is what is written here.
MODULES = {
    "started": "started",
    "session.created": "session_created",
    "session.deleted": "session_deleted",
    "session.idle": "session_idle",
    "session.error": "session_error",
    "session.compacted": "session_compacted",
    "session.compacting": "session_compacting",
    "chat.message": "chat_message",
    "text": "text",
    "tool.before": "tool_before",
    "tool.after": "tool_after",
    "tool.error": "tool_error",
    "todo.updated": "todo_updated",
    "permission.asked": "permission_asked",
    "branch.updated": "branch_updated",
    "command": "command",
    "disposed": "disposed",
}
