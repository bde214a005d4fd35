"""The ODMs and extensions people use: a program for each, run as it is by `run.py`."""
