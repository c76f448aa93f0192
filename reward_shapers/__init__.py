"""Reward shapers, one idea a file: pure functions of what was recorded."""
