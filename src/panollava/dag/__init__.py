"""The DAG, written once. In reading order:

    nodes.py       the table: a node's rule, settings, parents, files, log, resources, job, version
    settings.py    groups of settings that nodes read, and the settings that change no result
    parents.py     what a slice holds beside settings: files from outside, and the nodes before
    slices.py      a node's slice and its digest: the reason why exactly the stale parts run again
    tasks.py       one job of a node: its slice, files, arguments, log
    inputs.py      the files that a job waits for;  options.py  arguments that change no result
    freshness.py   whether a result is there, and of this slice
    jobs.py        the function behind each rule;  script.py  how a script of workflow/scripts runs it
    local.py       the same jobs in this process, one after the other
    records.py     the state of stages, experiments and grids;  cluster.py  jobs elsewhere

The Snakefile imports this at the start of every command: no torch, numpy or pandas.
"""
