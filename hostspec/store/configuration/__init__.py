"""Which store is meant where none is named, and its options: storage.conf, hostspec.conf, the environment."""
