"""Receipts: what is on one (model, layout: pure), and what prints it (ESC/POS, PDF, PNG)."""
