"""The optimisation loop, what it trains, and the defaults it starts from."""
