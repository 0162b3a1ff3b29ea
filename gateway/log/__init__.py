"""The invocation log: the spool the gateway writes, the DuckDB file the learner owns.

Import the submodules directly: the gateway takes ``record`` and ``spool`` alone, so that
its workers never load DuckDB.
"""
