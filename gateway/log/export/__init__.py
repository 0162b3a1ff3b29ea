"""The log goes out: as files to train on, or as Parquet that holds whole rows.

``jsonl`` writes OpenAI's and NVIDIA's shapes, ``parquet`` frozen datasets. Import the submodules
directly.
"""
