"""The use cases of closes and cases; each can be repeated at any time without harm."""
