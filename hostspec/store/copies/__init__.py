"""Images under other ID maps: which way a container gets its map, and the mapped copies that are kept."""
