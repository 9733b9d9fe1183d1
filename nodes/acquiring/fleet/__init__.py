"""The terminal fleet: what an acquirer knows of its terminals beside their trade."""
