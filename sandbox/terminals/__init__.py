"""Simulated terminals: scenarios in YAML (docs/terminal-simulator.md), and the service behind the
console's virtual POS."""
