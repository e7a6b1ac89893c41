"""What the Snakefile plans with: which files each rule waits for, and with which options its job is called.

An experiment enters, or the key of a folder of the shared cache; paths (posix text, relative to the project's root) and
the text of options leave. Imported by `workflow/rules/common.smk` at the start of every command: no torch, numpy or
pandas.
"""
