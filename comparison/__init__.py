"""For compare.py: parallel runs, tables and figures; lists of images from several runs."""
