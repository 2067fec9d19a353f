"""HTML pages that work without a network.

Open `page.py` first: how a page is made of templates, and its charts. Each other file makes one kind of page:
`run_page.py` (its figures are measured in `report.py`), `text_pages.py`, and `playground.py`, a page that runs models;
`export.py` writes models as such pages, and as ONNX files.
"""
