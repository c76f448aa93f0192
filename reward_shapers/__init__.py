"""Rewards to choose from and to build with, one idea a file. The algebra itself is `agentgym.reward`.

=============  =======================================================
module         holds
=============  =======================================================
`recipes`      whole rewards by name, for configurations
`outcome`      what the episode as a whole came to
`step`         what each turn brought
`gates`        conditions on signals
`item_gates`   conditions between items: dependencies, connection
`transforms`   changes of an amount: clip, affine, scale, curves
`centring`     … measured against references: PAR and its baselines
`sequences`    … by its place: delta, decay with counts and length
`schedules`    … by the training step
`reducers`     several rewards into one: mean, worst, entropic, and
`mixes`        outcome and process together, as published
`efficiency`   a length penalty where the task is solved often
=============  =======================================================
"""
