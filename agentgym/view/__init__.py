"""Looking at runs: while they go on (`live`) and afterwards (`curve`)."""
