"""Score (one number in 0..1) and Distribution (a probability for each class) of sequences.

Open `fit` first: it fits a table, as `charlm fit` does; `estimators` do the same for arrays, with scikit-learn's
protocol. Then `model` (the network, of the shape in `config`), `batches` (many sequences of different lengths), `tasks`
(what is optimised), `fit_run` (the network's training), `baselines` and `fitted_models` (all models of a fit and their
mix), `table_fit` (what a fit gives back), `metrics` and `figures`. The columns of a table are read by `cells` and
`labels`; `tabular` makes a task of one, `predict` writes into one.
"""
