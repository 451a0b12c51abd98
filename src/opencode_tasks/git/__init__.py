"""Everything that reads or changes the user's repository."""
