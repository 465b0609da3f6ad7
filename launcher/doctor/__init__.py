"""The check-up of a portal and its clusters: ``manage.py doctor``, and the administrators' page. It mends nothing."""
