"""Several language models as one, with weights that learn while a text is read.

Open `mixture` first; `cache` is an n-gram model of what was just read, which a mixture may hold.
"""
