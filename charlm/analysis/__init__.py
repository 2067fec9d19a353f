"""Evaluating, comparing and looking into language models, whatever their family."""
