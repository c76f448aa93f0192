"""Configurations that ship with agentgym, one TOML file each; `agentgym.config.load` takes their names."""
