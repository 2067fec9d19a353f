"""Counted models: what followed each history of n characters, and how often.

Read `fit.py` first: it makes models, and adds up the counts of several. `index.py` sorts a text once, and finds what
was copied from it; `levels.py` holds the counts of an order, `counted.py` and `kneser_ney.py` (ARPA files too) turn
counts into probabilities, `estimators.py` has all ways by name and scores many orders in one pass, `model.py` is the
language model; `past_memory.py` counts texts larger than memory.
"""
