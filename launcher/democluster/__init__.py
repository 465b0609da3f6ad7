"""A demonstration cluster: an SSH server on loopback with a small PBS behind it.

It lets somebody try the portal, and lets the tests run, without a supercomputer. It is a demonstration and no
security boundary between its users: they have different passwords, homes and names, yet every command and
every job runs with the uid of the server process. Never expose it beyond loopback.

It answers as the recorded OpenPBS 23.06 does, runs jobs as real processes, and can be told to misbehave
(see ``faults``). It imports nothing from the portal.
"""
