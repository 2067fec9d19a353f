"""Score (one number in 0..1) and Distribution (a probability for each class) of sequences.

Open `estimators` first: they keep scikit-learn's protocol. Then `model` (the network, of the shape in `config`),
`batches` (many sequences of different lengths), `tasks` (what is optimised), `fitting` (a run) and `metrics`.
Tables are read by `tables` and `formats`, their columns by `cells` and `labels`, and divided by `rows`; `tabular` makes
a task of one, and `predict` writes predictions into one.
"""
