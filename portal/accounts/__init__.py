"""People: accounts, signing in, preferences, personal tokens and the site's policy."""
