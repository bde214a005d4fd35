"""Async programs: the same steps through every driver, and what is proved with them."""
