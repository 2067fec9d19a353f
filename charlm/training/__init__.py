"""Training: from a text to a model that is ready to use.

Open `train` first: `charlm.train`. `recipe` chooses the options that were not given, `options` has the learning rate,
the optimizer and the budget, `language` cuts the text into windows and gives the loss, `loop` takes the steps, `run`
and `states` save and resume, `watching` shows the progress, `distributed` trains in several processes, `graphed`
replays steps on a GPU.
"""
