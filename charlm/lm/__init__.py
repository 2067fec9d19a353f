"""Language models: the interface, and everything that can be done with any of them.

Open `interface` first (ids in, log-probabilities out), then `model` (what a person calls). `reading` reads spans,
`evaluate` measures, `sampling` generates, `next` asks for one distribution, `scores` and `scored` give the bits of each
character, `compare` puts models side by side, `directory` describes what is saved, `painting` colours text.
"""
