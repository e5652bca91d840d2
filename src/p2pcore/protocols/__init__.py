"""Application protocols, each on the public stream API alone."""
