"""The contracts' sources (src/*.sol) and their compiled form (artifacts/*.json)."""
