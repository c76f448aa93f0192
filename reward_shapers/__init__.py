"""Rewards to choose from and to build with, one idea a file. The algebra itself is `agentgym.reward`.

=================  ===============================================================================
module             holds
=================  ===============================================================================
`recipes`          whole rewards by name, for configurations
`published`        published compositions by name
`outcome`          what the episode as a whole came to
`step`             what each turn brought
`format`           whether messages keep to a format
`tools`            tool calls against those of a reference
`toolrl`           ToolRL's reward and its variants
`solves`           sub-answers that tool calls bring to light
`verification`     which tests pass, and how hard they are
`reference`        the answer against a reference answer
`likelihood`       probe: how likely a model finds the reference
`aligned`          how much likelier an answer is for its question
`tiers`            nearness in zones
`length`           length, thoughts and repetition
`efficiency`       a length penalty where the task is solved often
`gates`            conditions on signals
`item_gates`       conditions between items: dependencies, connection
`transforms`       changes of an amount: clip, affine, scale, curves
`centring`         … measured against references: PAR and its baselines
`sequences`        … by its place: delta, decay with counts and length
`schedules`        … by the training step
`reducers`         several rewards into one: mean, worst, entropic, and
`mixes`            outcome and process together, as published
`scales`           the range a source pays on, step by step
`checklist`        binary items with dependencies (CM2)
`checklist_judge`  the probe that asks which items are satisfied
`rubric`           statements about entities, joined to the answer (CaRR)
`rubric_judge`     the probe that asks what an answer names and cites
`principles`       steps and answers judged by principles (PPR, RLBFF, SALMON)
`skills`           steps routed to a skill and its criteria (SCRIBE)
`pairwise`         two episodes compared in both orders
`brackets`         who meets whom, and what place each gets
`tournament`       siblings ranked by matches (ArenaRL)
`in_group`         a sibling as the reference of the others (BRPO)
`grading`          grades asked several times, and voted on (DeepSeek-GRM)
`asking`           what every probe that asks a judge does
`progress`         credit in the order of the turns: sub-goals, differences, potentials, estimates
`verifier`         a probe: what a world's own check says of each turn
=================  ===============================================================================
"""
