"""The report: a static site of every figure, verdict, check and finding, written from conf/ and results/ without torch.

``figures.py`` and ``ledger.py`` read and check what is there; the modules named after pages write Markdown; ``site.py``
gathers the pages and lets MkDocs build them.
"""
