"""Undo for a workspace's files: a bare shadow repository beside the user's own, which stays untouched."""
