"""The site: who may do what, and what was done."""
