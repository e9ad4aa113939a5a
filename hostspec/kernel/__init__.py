"""Thin wrappers around Linux interfaces, one module for each.

A wrapper encodes its arguments, makes one system call and raises
``OSError(errno, message, path)`` when the kernel refuses; its docstring names the
capability that it needs. Paths are :class:`str` as :func:`os.fsdecode` gives them,
descriptors are plain ints, and every descriptor made here is close-on-exec.

Importing a module of this package imports next to nothing: ``ctypes`` is loaded with
the first system call that Python itself does not offer.
"""
