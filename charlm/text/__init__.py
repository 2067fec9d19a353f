"""From files to ids.

Open `text` first: `read_text` and `Text` are what everything else is given. `reading` turns bytes into characters,
`vocab` characters into ids, `corpus` files into one sequence of ids, `splits` says which of them train, validate and
test, `units` finds words, items and passages. `tables` reads and writes tables, `cache` keeps big texts on disk,
`profile` describes a text, `catalog` knows published texts and downloads them.
"""
