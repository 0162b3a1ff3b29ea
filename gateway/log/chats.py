"""Which rows are chats that a client asked for and was answered: what can be learnt from.

Conditions over ``invocations i``.
"""

GIVEN = "i.arm IS DISTINCT FROM 'shadow'"
"""A shadow's answer was given to nobody."""

CHATS = f"i.operation_name = 'chat' AND i.prompt_hash IS NOT NULL AND {GIVEN}"
"""Chat completions with a prompt: only those have a hash of it. Embeddings and text completions
are none; responses and messages are shaped otherwise, and nobody here reads those shapes yet."""

# Inside a string of JSON quotation marks are escaped: there it is never found.
LEARNABLE = f"""{CHATS} AND i.train_ok
  AND coalesce(NOT contains(i.verdicts::VARCHAR, '"action":"block"'), true)"""
"""Chats that may be learnt from; what a guard refused is no example of anything."""
