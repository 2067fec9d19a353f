"""HTML pages that work without a network.

Open `page.py` first: how a page is made of templates, and its charts. Each other file makes one kind of page:
`run_page.py` (its figures are measured in `report.py`), `surprise_page.py` and `inspect_page.py`.
"""
