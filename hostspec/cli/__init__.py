"""The command line: parse, run, render.

``grammar`` is how arguments are read, ``surface`` which sub-commands there are, ``help`` how they
are explained, ``context`` what a running sub-command is given, ``render`` how results look.
Each other module runs the sub-commands of one theme, and is imported only when one of them runs.
"""
