"""What the workers do, one flow a file: read the session, act on the cluster as its user, hand the facts to services.

Every flow can be repeated at any point: each step either is harmless twice or is looked up before it is done again.
"""
