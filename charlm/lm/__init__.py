"""Language models: the interface, and everything that can be done with any of them.

Open `interface` first (ids in, log-probabilities out; temperature, top-k and top-p as `SamplingRule`), then `model`
(what a person calls). `evaluate` measures, `sampling` generates, `surprise` gives the bits of each character and
`scored` those of lines and documents, `items` those of whole items; `compare` puts models side by side, `coding` is
the arithmetic coder.
"""
