"""Rewards to choose from and to build with, one idea a file. The algebra itself is `agentgym.reward`.

============  ==========================================================================
module        holds
============  ==========================================================================
`recipes`     whole rewards by name, for configurations
`outcome`     what the episode as a whole came to
`step`        what each turn brought
`gates`       conditions on signals
`transforms`  changes of an amount: clip, affine, scale
`progress`    credit in the order of the turns: sub-goals, differences, potentials, estimates
`verifier`    a probe: what a world's own check says of each turn
============  ==========================================================================
"""
