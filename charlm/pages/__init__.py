"""HTML pages that work without a network.

Open `page.py` first: how a page is made of templates, its charts and maps of surprise. `run_page.py` is the page about
a run, whose figures are measured in `report.py`; `model_pages.py` shows hidden units, and runs models; `export.py`
writes models as such pages, and as ONNX files.
"""
