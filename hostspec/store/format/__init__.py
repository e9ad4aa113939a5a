"""containers/storage's on-disk format: where files lie, how they are locked, read and written.

Nothing here knows drivers or what is done with a record.
"""
