"""What hostspec costs, beside ``containers-storage``, in one run on one machine.

``python -m benchmarks`` measures the store's work, ``python -m benchmarks.startup`` where the time of a
small command goes. Nothing here is a test: a ratio to the peer says more than a limit in seconds.
"""
