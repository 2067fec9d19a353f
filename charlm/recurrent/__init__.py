"""Recurrent networks as language models, and what their hidden units do.

Open `model.py` first: `CharRNN`. `dynamic.py` lets a network go on learning while it reads. `inspection.py` finds what
hidden units follow: `atlas.py` reads their values, `properties.py` lists what is searched for, `agreement.py` says how
well a unit follows it and draws it.
"""
