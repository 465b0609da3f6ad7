"""The portal's hands on a cluster: connections, commands, files and tunnels over asyncssh. No Django here."""
