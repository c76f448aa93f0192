"""Asking a judge well: the prompt, the call, the verdict, and what is known before any call.

`prompt` fences the material and `verdict` reads what comes back; `openai` asks an endpoint, with the patience of
`patience` and the memory of `cache`; `contentless` tells what needs no judge.
`server` is a judge to test against, which fails as it is told to, and which `gullible` makes fall for what published
judges fell for; `undefended` is the control without fences.
"""
