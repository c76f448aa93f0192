"""TextWorld: text adventures, generated and played."""
