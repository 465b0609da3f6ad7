"""A small PBS: queues, nodes, jobs and the commands that speak for them, as OpenPBS 23.06 was recorded."""
