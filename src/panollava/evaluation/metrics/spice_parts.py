"""The parts of SPICE that pycocoevalcap lacks: Stanford CoreNLP 3.6.0 and a launcher that runs on today's Java.

They live in the user's cache folder (`CACHE/spice`) or, the jars, beside pycocoevalcap's own; `setup_spice` brings them
from Maven, each checked by its SHA-256. SPICE's own entry point prints through Nashorn, which left Java in version
15; the launcher calls the same scorer and writes its JSON itself. It is compiled once, by the JDK's compiler or,
where only a runtime is installed, by Eclipse's.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from panollava.errors import EvaluationError
from panollava.evaluation.metrics.java import cache_folder, java_version, need_java
from panollava.evaluation.metrics.ptb import coco_folder
from panollava.evaluation.metrics.result import MetricUnavailable
from panollava.files import atomic_path, sha256_file

REMEDY = "run panollava setup-metrics"
_MAVEN = "https://repo1.maven.org/maven2"
_CORENLP = f"{_MAVEN}/edu/stanford/nlp/stanford-corenlp/3.6.0"


@dataclass(frozen=True)
class Jar:
    name: str
    url: str
    size: int
    sha256: str


CORENLP_JARS = (
    Jar(
        "stanford-corenlp-3.6.0.jar",
        f"{_CORENLP}/stanford-corenlp-3.6.0.jar",
        7_270_741,
        "d341d5863276f55782c5ef73212222d6b3b48e02ae1951ab6de7618d28b12742",
    ),
    Jar(
        "stanford-corenlp-3.6.0-models.jar",
        f"{_CORENLP}/stanford-corenlp-3.6.0-models.jar",
        378_116_526,
        "d285157bd7887ee3018094b5dbae092e49088b023361ccdb550ee1daf9b2c9bd",
    ),
)
COMPILER_JAR = Jar(
    "ecj-3.26.0.jar",
    f"{_MAVEN}/org/eclipse/jdt/ecj/3.26.0/ecj-3.26.0.jar",
    3_133_846,
    "ac0ba5876eaf7ebb47749a0d1be179c51f194b9dd0b875d1c09e1b530f5a2db5",
)

LAUNCHER = "SpiceLauncher"
LAUNCHER_SOURCE = """\
import java.lang.reflect.Constructor;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Arrays;

/** Scores as edu.anu.spice.SpiceScorer does and writes its JSON: SpiceLauncher OUT.json IN.json [options]. */
public class SpiceLauncher {
  public static void main(String[] args) throws Exception {
    Class<?> scorerClass = Class.forName("edu.anu.spice.SpiceScorer");
    Class<?> optionsClass = Class.forName("edu.anu.spice.SpiceArguments");
    Constructor<?> newScorer = scorerClass.getDeclaredConstructor();
    Constructor<?> newOptions = optionsClass.getDeclaredConstructor(String[].class);
    newScorer.setAccessible(true);
    newOptions.setAccessible(true);
    Object scorer = newScorer.newInstance();
    Object options = newOptions.newInstance((Object) Arrays.copyOfRange(args, 1, args.length));
    scorerClass.getMethod("scoreBatch", optionsClass).invoke(scorer, options);
    Object stats = scorerClass.getField("stats").get(scorer);
    String json = (String) stats.getClass().getMethod("toJSONString").invoke(stats);
    Files.write(Paths.get(args[0]), json.getBytes(StandardCharsets.UTF_8));
  }
}
"""


def spice_folder() -> Path:
    return cache_folder() / "spice"


def find_jar(jar: Jar) -> Path | None:
    """A CoreNLP jar in the cache folder or among pycocoevalcap's own, of the right size; None without."""
    for folder in (spice_folder(), coco_folder() / "spice" / "lib"):
        path = folder / jar.name
        if path.is_file() and path.stat().st_size == jar.size:
            return path
    return None


def missing_parts() -> list[str]:
    """What SPICE still lacks, in words; empty when it can run (or compile its launcher)."""
    missing = [] if java_version() else ["Java"]
    if any(find_jar(jar) is None for jar in CORENLP_JARS):
        missing.append("CoreNLP 3.6.0")
    if not missing and not _launcher_class().is_file() and not _has_compiler() and _ecj() is None:
        missing.append("a Java compiler for its launcher")
    return missing


def class_path() -> list[Path]:
    """Everything that SPICE's class path names. Raises MetricUnavailable with the remedy."""
    need_java()
    if missing := missing_parts():
        raise MetricUnavailable(f"{' and '.join(missing)} not installed: {REMEDY}")
    own = coco_folder() / "spice"
    jars = [path for jar in CORENLP_JARS if (path := find_jar(jar))]
    return [compile_launcher(), own / "spice-1.0.jar", *sorted((own / "lib").glob("*.jar")), *jars]


def compile_launcher() -> Path:
    """Folder that holds the launcher's class, compiled where it is not there yet."""
    compiled = _launcher_class()
    if compiled.is_file():
        return compiled.parent
    compiled.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="panollava-spice-") as folder:
        source = Path(folder) / f"{LAUNCHER}.java"
        source.write_text(LAUNCHER_SOURCE, encoding="ascii")
        if _has_compiler():
            compiler = ["-m", "jdk.compiler/com.sun.tools.javac.Main", "-Xlint:-options", "--release", "8"]
        elif ecj := _ecj():
            compiler = ["-jar", str(ecj), "-source", "8", "-target", "8", "-nowarn"]
        else:
            raise MetricUnavailable(f"a Java compiler for SPICE's launcher not installed: {REMEDY}")
        done = subprocess.run(
            [need_java(), *compiler, "-d", folder, str(source)], capture_output=True, timeout=300, text=True
        )
        if done.returncode:
            raise EvaluationError(f"SPICE's launcher does not compile: {(done.stdout + done.stderr)[-500:]}")
        with atomic_path(compiled) as partial:
            shutil.copyfile(Path(folder) / compiled.name, partial)
    return compiled.parent


def setup_spice(say: Callable[[str], None] = print) -> None:
    """Bring what SPICE lacks: two CoreNLP jars (386 MB), a compiler where Java has none, the compiled launcher.

    What is there stays. Raises MetricUnavailable without Java and EvaluationError for a failed or altered download.
    """
    need_java()
    jars = [jar for jar in CORENLP_JARS if find_jar(jar) is None]
    if not _launcher_class().is_file() and not _has_compiler() and _ecj() is None:
        jars.append(COMPILER_JAR)
    for jar in jars:
        say(f"{jar.name} ({jar.size / 1e6:.0f} MB) from {jar.url}")
        download(jar, spice_folder() / jar.name)
    compile_launcher()
    say(f"SPICE is ready in {spice_folder()}")


def download(jar: Jar, target: Path) -> None:
    """Fetch a jar to `target`, which appears only when its SHA-256 is right."""
    with atomic_path(target) as partial:
        try:
            with urllib.request.urlopen(jar.url, timeout=60) as source, partial.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        except OSError as error:
            raise EvaluationError(
                f"{jar.url} cannot be fetched ({error}). Put the file there by hand: {target}"
            ) from error
        if (found := sha256_file(partial)) != jar.sha256:
            raise EvaluationError(f"{jar.url} has SHA-256 {found}, expected {jar.sha256}: not kept.")


def _launcher_class() -> Path:
    digest = hashlib.sha256(LAUNCHER_SOURCE.encode()).hexdigest()[:12]
    return spice_folder() / f"launcher-{digest}" / f"{LAUNCHER}.class"


def _ecj() -> Path | None:
    path = spice_folder() / COMPILER_JAR.name
    return path if path.is_file() else None


def _has_compiler() -> bool:
    """Whether this Java brings the JDK's compiler (a runtime alone does not)."""
    done = subprocess.run([need_java(), "--list-modules"], capture_output=True, timeout=60, text=True)
    return any(line.startswith("jdk.compiler") for line in done.stdout.splitlines())
