"""Counted models: what followed each history of n characters, and how often.

Read `fit.py` first: it makes models. `index.py` sorts a text once, `levels.py` holds the counts of an order,
`counted.py` and `kneser_ney.py` (ARPA files too) turn counts into probabilities, `model.py` is the language model,
`orders.py` scores many orders in one pass; `past_memory.py` counts a text that is larger than memory.
"""
