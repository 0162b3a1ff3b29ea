"""``ratchet demo``: the whole loop on one machine, told as it happens.

It knows no data set: whatever folder holds traffic.jsonl, heldout.jsonl and tools.json will do.
"""
