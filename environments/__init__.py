"""Worlds, one folder each. The core finds them by name, never by import."""
