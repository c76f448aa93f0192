"""Rewards to choose from and to build with, one idea a file. The algebra itself is `agentgym.reward`.

=================  ===========================================================
module             holds
=================  ===========================================================
`recipes`          whole rewards by name, for configurations
`outcome`          what the episode as a whole came to
`step`             what each turn brought
`gates`            conditions on signals
`transforms`       changes of an amount: clip, affine, scale
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
=================  ===========================================================
"""
