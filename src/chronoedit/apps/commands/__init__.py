"""The commands, one module a group.

A module here has a table `COMMANDS`: the command's words ("edit", "world sample") → a frozen keyword-only dataclass
whose fields are the flags and whose first docstring line is the summary; its `run()` does the work. What `run` needs
beyond the standard library, Pillow, numpy and `chronoedit.request` is imported inside it, so that `--help` is quick.
It raises ValueError for bad arguments (exit code 2) and `ChronoEditError` for failures (1); `main` prints both.
"""
