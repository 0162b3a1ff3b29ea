"""Other systems' logs become records of ours: a file per shape, ``run`` drives them.

A shape is a function from one row to the records it holds; it raises BadRow for a row that
holds none. Import the submodules directly.
"""
