"""A real Slurm of one node, from Debian's packages: started and stopped without systemd, cgroups or a database.

Enters: an empty folder. Everything it writes lies there, but for links in Slurm's configuration folder: the only way
to tell jobs where the controller is. So there can be one at a time on a machine, and none beside another Slurm.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from panollava.processes import die_with_parent

PACKAGES = "slurm-wlm munge slurmd slurmctld slurm-client"
SYSTEM_FOLDER = Path("/etc/slurm")
_LOCK = Path("/tmp/panollava_one_node_slurm.lock")
_HOST = socket.gethostname().partition(".")[0]
_FILES = {
    # Nothing is enforced by the node: sizes are made up, so that jobs of any size are taken.
    "slurm.conf": """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=1,batch_sched_delay=1
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
InactiveLimit=0
KillWait=10
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:2
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
""",
    "gres.conf": "NodeName={host} Name=gpu File=/dev/null\nNodeName={host} Name=gpu File=/dev/zero\n",
    "cgroup.conf": "CgroupAutomount=no\n",
}


def why_not() -> str | None:
    """What keeps this machine from running the tests' Slurm; None where nothing does."""
    missing = [tool for tool in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install --no-install-recommends {PACKAGES}"
    if os.geteuid() != 0:
        return "only root can start Slurm's daemons"
    if any(_is_foreign(SYSTEM_FOLDER / name) for name in _FILES):
        return f"this machine has a Slurm of its own ({SYSTEM_FOLDER}/slurm.conf)"
    return None


def _is_foreign(path: Path) -> bool:
    """A file that is there and is not a link that an interrupted test left."""
    return path.exists() and not path.is_symlink()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class OneNodeSlurm:
    """Use `running`. Jobs are known by Slurm's numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[OneNodeSlurm]:
        """A Slurm below `folder` (a short path: it holds a socket), ready for jobs; waits for one of another test."""
        with _LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            slurm = cls(folder)
            try:
                slurm._start()
                yield slurm
            finally:
                slurm._stop()

    def _start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for name, text in _FILES.items():
            (self.folder / name).write_text(text.format(host=_HOST, folder=self.folder).lstrip(), encoding="utf-8")
            (SYSTEM_FOLDER / name).unlink(missing_ok=True)
            (SYSTEM_FOLDER / name).symlink_to(self.folder / name)
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "seed"}
        self._spawn("munged", "-F", "--force", *(f"--{option}={self.folder / name}" for option, name in files.items()))
        self.wait_until(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._spawn("slurmctld", "-D", "-c")
        self.start_node()

    def _stop(self) -> None:
        _kill(self.job_processes())  # those of a test that failed
        for name in ("slurmd", "slurmctld", "munged"):
            if (daemon := self._daemons.get(name)) is not None:
                daemon.terminate()
                daemon.wait(timeout=30)
        for name in _FILES:
            (SYSTEM_FOLDER / name).unlink(missing_ok=True)

    def _spawn(self, name: str, *options: str) -> None:
        parent = os.getpid()
        with (self.folder / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                [name, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),
            )  # fmt: skip

    def _out(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come about within {seconds:.0f} s"
            time.sleep(0.05)

    def node_state(self) -> str:
        """`idle`, `mixed`, `down`, …; with `*` where the node does not answer."""
        return self._out("sinfo", "-h", "-o", "%T")

    def start_node(self) -> None:
        self._spawn("slurmd", "-D", "-N", _HOST)
        self.wait_until(lambda: self.node_state() in ("idle", "mixed", "allocated"), "a node that is ready")

    def kill_node(self) -> None:
        """As if the machine lost power: kill -9 of the node's daemon and of everything that it started."""
        daemon = self._daemons.pop("slurmd")
        _kill([daemon.pid, *self.job_processes()])
        daemon.wait()

    def job_processes(self) -> list[int]:
        """PIDs of the step daemons on this node and of everything below them."""
        parents: dict[int, int] = {}
        found: set[int] = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue  # it ended meanwhile
            pid = int(stat.parent.name)
            parents[pid] = int(rest.split()[1])
            if name == "slurmstepd":
                found.add(pid)
        grown = True
        while grown:
            below = {pid for pid, parent in parents.items() if parent in found} - found
            found |= below
            grown = bool(below)
        return sorted(found)

    def jobs(self, state: str = "all") -> list[str]:
        """Numbers of the jobs in a state (`pending`, `running`, …), oldest first."""
        return self._out("squeue", "-h", "-o", "%i", "-S", "i", "-t", state).split()

    def state_of(self, job: str) -> str:
        return self._out("squeue", "-h", "-t", "all", "-o", "%T", "-j", job)

    def hold_new_jobs(self, hold: bool) -> None:
        """Jobs that are submitted from now on stay pending; or begin."""
        self.control("update", "PartitionName=debug", f"State={'DOWN' if hold else 'UP'}")

    def control(self, *words: str) -> None:
        subprocess.run(["scontrol", *words], check=True, timeout=30)
