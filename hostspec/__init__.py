"""Container graph drivers as plugins.

Start at :mod:`hostspec.hookspecs` for the contract that a driver fulfils, at
:mod:`hostspec.plugins` to open an installed driver, and at :mod:`hostspec.store` for the
layers, images and containers that are kept with one.
"""

__all__ = ["__version__"]

# A constant: asking importlib.metadata would cost every command some 25 ms.
__version__ = "0.1.0"
