"""Layers as tar streams: what changed in one, packing it, unpacking it.

Import from the modules; this package imports none of them, since most callers need one.

- :mod:`~hostspec.archive.changes`, :mod:`~hostspec.archive.upper`: what differs between two trees, and
  what an overlay's upper directory says;
- :mod:`~hostspec.archive.pack`, :mod:`~hostspec.archive.unpack`: layer tars;
- :mod:`~hostspec.archive.compression`: what may be around them;
- :mod:`~hostspec.archive.whiteouts`: how deletions look.
"""
