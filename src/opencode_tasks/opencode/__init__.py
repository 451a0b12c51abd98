"""OpenCode as we find it on this machine: its configuration, and what of ours lies there."""
