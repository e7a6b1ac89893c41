"""Jobs that fail where a test says so: Python imports this by itself in every process below a test.

FAULTS holds `rule:fault` pairs, FAULT_DISK a folder on a small file system. With FAULT_SIGTERM, snakemake gets SIGTERM
in the moment in which its first job finishes. Faults:

    exit          the job ends with code 3 before it begins
    kill          kill -9 before it begins
    memory        memory runs out as it begins
    late-kill     kill -9 when its first output has its name
    late-memory   memory runs out when its first output has its name
    nan           the loss is not a number
    full          the disk is full, to the last byte
    nearly-full   there is room for small files only
    edit          FAULT_EDIT is `NEW OLD`: as the job begins, the file OLD gets the content of NEW
"""

import dataclasses
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from pathlib import Path


def rule_of(words: list[str]) -> str | None:
    """The rule whose job this process is."""
    scripts = [Path(word) for word in words if word.endswith(".py") and Path(word).parent.name == "scripts"]
    return scripts[0].stem if scripts else None


def output_of(rule: str, words: list[str]) -> str:
    """The job's first output; where it fills a folder, that folder."""
    from panollava.dag.nodes import RULES

    options = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--") and "=" in word)
    first = next(options[name] for name in RULES[rule].outputs if name in options)
    of_folder = RULES[rule].cache or rule.startswith("train_") or rule == "prepare_experiment"
    return os.path.abspath(os.path.dirname(first) if of_folder else first)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError


def when_published(output: str, fault) -> None:
    """`fault` once an output has been renamed into place."""
    rename = os.replace

    def replace(source, target, **options) -> None:
        rename(source, target, **options)
        if os.path.abspath(target).startswith(output) and not os.path.basename(target).startswith("."):
            fault()

    os.replace = replace


def after_import(name: str, change) -> None:
    """`change(module)` once the module is there."""

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname, path, target=None):
            if fullname != name:
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(fullname)
            load = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (load(module), change(module))
            return spec

    sys.meta_path.insert(0, Finder())


def lose_loss(module) -> None:
    """Losses are not numbers: of a stage, or of a miniature's pre-training."""
    if stage := getattr(module, "StageModule", None):
        share = stage._share
        stage._share = lambda self, *given: _not_a_number(share(self, *given))
    else:
        train = module.train
        module.train = lambda one, schedule, loss_of, *rest: train(
            one, schedule, lambda step: loss_of(step) * float("nan"), *rest
        )


def _not_a_number(share):
    return dataclasses.replace(share, loss=share.loss * float("nan"), whole_loss=share.whole_loss * float("nan"))


def fill(folder: str, left: int) -> None:
    """Write into a file system until `left` bytes are free."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with (Path(folder) / "filling").open("ab") as stream:
        stream.write(b"\0" * max(0, free - left))


def arm(fault: str, rule: str, words: list[str]) -> None:
    match fault:
        case "exit":
            os._exit(3)
        case "kill":
            kill()
        case "memory":
            memory_as_it_begins()
        case "late-kill":
            when_published(output_of(rule, words), kill)
        case "late-memory":
            when_published(output_of(rule, words), run_out_of_memory)
        case "nan":
            for name in ("panollava.training.module", "panollava.miniature.pretraining"):
                after_import(name, lose_loss)
        case "full":
            fill(os.environ["FAULT_DISK"], 0)
        case "nearly-full":
            fill(os.environ["FAULT_DISK"], 128 * 1024)
        case "edit":
            new, old = os.environ["FAULT_EDIT"].split()
            Path(old).write_bytes(Path(new).read_bytes())
        case _:
            raise ValueError(fault)


def memory_as_it_begins() -> None:
    """The first of panollava's modules that a job imports for itself cannot be loaded."""
    import panollava.dag.script  # noqa: F401

    started = {name for name in sys.modules if name.startswith("panollava")}

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname, path, target=None):
            if fullname.startswith("panollava.") and fullname not in started:
                run_out_of_memory()

    sys.meta_path.insert(0, Finder())


if (rule := rule_of(sys.orig_argv)) is not None:
    if disk := os.environ.get("FAULT_DISK"):
        (Path(disk) / "filling").unlink(missing_ok=True)  # room for the next job
    faults = dict(pair.split(":") for pair in os.environ.get("FAULTS", "").split())
    if rule in faults:
        arm(faults[rule], rule, sys.orig_argv)

if "FAULT_SIGTERM" in os.environ and "snakemake" in sys.orig_argv:

    def stop_as_a_job_finishes(module) -> None:
        scheduler = module.JobScheduler
        progress = scheduler.progress  # called with the scheduler's lock held

        def told(self):
            progress(self)
            os.kill(os.getpid(), signal.SIGTERM)

        scheduler.progress = told

    after_import("snakemake.scheduling.job_scheduler", stop_as_a_job_finishes)
