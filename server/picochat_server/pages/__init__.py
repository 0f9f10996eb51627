"""Server-made HTML: run list, run page, login. Nothing here changes a run but the cancel form."""
