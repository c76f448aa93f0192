"""The trainer: batches, advantages, losses and the loop. Needs the `train` extra."""
