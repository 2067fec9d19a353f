"""HTML pages that work without a network.

Open `page.py` first: how a page is made of templates, its charts and maps of surprise. `run_page.py` has the page of a
run, whose figures are measured in `report.py`, as are those of a scored text, and the page of hidden units;
`export.py` writes models as pages that run them, and as ONNX files (`onnx_file.py`).
"""
