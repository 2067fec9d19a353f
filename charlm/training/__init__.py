"""Training: from a text to a model that is ready to use.

Open `train` first: `charlm.train`. `recipe` chooses the options that were not given, the learning rate by size among
them; `options` has the optimizer, the budget and how that rate falls, `language` cuts the text into windows and gives
the loss, `loop` takes the steps, `run` and `states` save and resume, `watching` shows the progress, `distributed`
trains in several processes, `graphed` replays steps on a GPU.
"""
