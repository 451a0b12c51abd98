"""One module per git hook; the shim of the same name in `git_hooks/` starts it."""

# A literal table: what can be started by name is what is written here.
MODULES = {
    "post-checkout": "post_checkout",
    "prepare-commit-msg": "prepare_commit_msg",
    "commit-msg": "commit_msg",
    "post-commit": "post_commit",
    "pre-commit": "pre_commit",
    "post-merge": "post_merge",
    "post-rewrite": "post_rewrite",
    "pre-push": "pre_push",
    "reference-transaction": "reference_transaction",
}
