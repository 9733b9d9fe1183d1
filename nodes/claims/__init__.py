"""Claims of omission that others bring: a member's node takes them to the chain."""
