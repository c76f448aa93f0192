"""Rewards to choose from and to build with, one idea a file. The algebra itself is `agentgym.reward`.

===============  =======================================================
module           holds
===============  =======================================================
`recipes`        whole rewards by name, for configurations
`outcome`        what the episode as a whole came to
`step`           what each turn brought
`format`         whether messages keep to a format
`tools`          tool calls against those of a reference
`toolrl`         ToolRL's reward and its variants
`solves`         sub-answers that tool calls bring to light
`verification`   which tests pass, and how hard they are
`reference`      the answer against a reference answer
`likelihood`     probe: how likely a model finds the reference
`aligned`        how much likelier an answer is for its question
`tiers`          nearness in zones
`length`         length, thoughts and repetition
`gates`          conditions on signals
`transforms`     changes of an amount: clip, affine, scale
`scales`         the range a source pays on, step by step
===============  =======================================================
"""
