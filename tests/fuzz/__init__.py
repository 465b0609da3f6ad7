"""A differential fuzz test: a strict reference reader of HTTP, and whether ours reads the same whatever the split.

``reference`` is the judge, ``loop`` an event loop and transport in memory, ``server_side`` and ``client_side`` drive
our two readers, ``streams`` makes what is tried, ``run`` is ``make fuzz``, ``test_fuzz`` the short version of it.
"""
