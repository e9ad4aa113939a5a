"""The methods of :class:`hostspec.store.Store`, in one class for each thing that they act on.

What a method does is written here, for programs; how it is done, in the modules beside this package.
A method imports its operation when it is called: listing records is to be fast.
"""
