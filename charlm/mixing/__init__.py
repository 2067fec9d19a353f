"""Several language models as one, and models that learn while a text is read.

Open `mixture` first: mixtures, and the cache of what was just read, which a mixture may hold. `adaptive` adds contexts
that learn to any model; `contexts` does so for a lane, `formulas` and `past` say in plain Python what is computed.
"""
