"""What the GitHub Action does besides `sway gate`: outputs, the job's summary, and one comment that is edited in place.

Everything comes by environment variables and files, never by words in a shell, since names in a pull request are
anybody's to choose.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dlm_sway.core.errors import BadInputError, CannotRunError, ExitCode, SwayError
from dlm_sway.core.result import SuiteResult
from dlm_sway.report.gate import gate_view
from dlm_sway.report.markdown import gate_lines
from dlm_sway.suite.gate import Gate, gate

RESULT: Final = "sway.json"
REPORTS: Final = {"json": RESULT, "markdown": "sway.md", "html": "sway.html", "junit": "sway.xml"}
COMMENT: Final = "comment.md"
_EACH: Final = '.[] | {id, login: .user.login, type: .user.type, first: (.body | split("\\n")[0])} | tojson'
_TIMEOUT_S: Final = 60
_VERDICTS: Final = {0: "pass", 1: "fail", 4: "inconclusive"}

Environment = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What later steps of a workflow read.

    Attributes:
        score: the composite, or nothing where none was made.
        verdict: of the gate: pass, fail, inconclusive or error.
        report: the page to look at; the Markdown where no page was written, nothing where the run left neither.
    """

    score: str
    verdict: str
    report: str

    def lines(self) -> str:
        """Return them as GitHub reads them; the delimiter is random, so that no value can end it."""
        end = secrets.token_hex(16)
        pairs = (("score", self.score), ("verdict", self.verdict), ("report", self.report))
        return "".join(f"{name}<<{end}\n{value}\n{end}\n" for name, value in pairs)


def report(env: Environment) -> int:
    """Write outputs and summary of a gate that has ended, and the body of the comment."""
    folder, code = Path(env["SWAY_ACTION_FOLDER"]), int(env.get("SWAY_ACTION_EXIT") or ExitCode.ERROR)
    found = _gate_of(folder, env)
    page = next((path for name in ("html", "markdown") if (path := folder / REPORTS[name]).is_file()), None)
    score = None if found is None else found.score.score
    outputs = Outputs(
        score="" if score is None else f"{score:.4f}",
        verdict=_VERDICTS.get(code, "error"),
        report="" if page is None else str(page),
    )
    body = _body(found, code, _markdown(folder))
    (folder / COMMENT).write_text(f"{marker(env.get('SWAY_ACTION_SPEC', ''))}\n{body}", encoding="utf-8")
    _append(env, "GITHUB_OUTPUT", outputs.lines())
    _append(env, "GITHUB_STEP_SUMMARY", body)
    return 0


def comment(env: Environment) -> int:
    """Edit the comment of this suite on the pull request, or make it where there is none.

    A pull request from a fork has a token that cannot comment; that is said, and fails nothing.
    """
    body = Path(env["SWAY_ACTION_FOLDER"]) / COMMENT
    first = body.read_text(encoding="utf-8").partition("\n")[0]
    repository, number = env["GITHUB_REPOSITORY"], int(env["SWAY_ACTION_PR"])
    try:
        known = _comment_with(first, f"repos/{repository}/issues/{number}/comments")
        place = f"repos/{repository}/issues/" + (f"comments/{known}" if known else f"{number}/comments")
        _gh("--method", "PATCH" if known else "POST", place, "--field", f"body=@{body}")
    except CannotRunError as fault:
        print(f"::warning title=sway::no comment: {_one_line(fault.one_line())}")  # noqa: T201 (how an action speaks)
    return 0


def marker(spec: str) -> str:
    """Return the invisible line by which a suite's comment is found again; no file name can break out of it."""
    return f"<!-- sway {hashlib.sha256(spec.encode()).hexdigest()[:16]} -->"


def _gate_of(folder: Path, env: Environment) -> Gate | None:
    path = folder / RESULT
    if not path.is_file():
        return None
    result = SuiteResult.model_validate_json(path.read_bytes())
    return gate(
        result,
        threshold=_share(env.get("SWAY_ACTION_THRESHOLD")),
        coverage_threshold=_share(env.get("SWAY_ACTION_COVERAGE")),
        strict=env.get("SWAY_ACTION_STRICT") == "true",
    )


def _share(text: str | None) -> float | None:
    return float(text) if text else None


def _body(found: Gate | None, code: int, markdown: str) -> str:
    """Return the report, which begins with the gate, or else the gate alone; and first what neither of them says."""
    if found is None:
        told = [f"**sway found no result: it ended with exit code {code}.** The log of the job says why.", markdown]
    else:
        odd = not found.breaches and code != ExitCode.PASS
        end = f"**sway ended with exit code {code}, though the gate is open:** the log of the job says why."
        told = [end if odd else "", markdown or gate_lines(gate_view(found))]
    return "\n\n".join(part for part in told if part)


def _markdown(folder: Path) -> str:
    path = folder / REPORTS["markdown"]
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _append(env: Environment, name: str, text: str) -> None:
    if path := env.get(name):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def _comment_with(first: str, place: str) -> int | None:
    """Return the comment whose first line is `first` and that is ours: anybody can write a comment that looks so."""
    told = _gh("--paginate", place, "--jq", _EACH)
    comments: list[dict[str, Any]] = [json.loads(line) for line in told.splitlines() if line.strip()]
    same = [c for c in comments if str(c["first"]).strip() == first]
    own = _login() if same else None
    return next((int(c["id"]) for c in same if (c["login"] == own if own else c["type"] == "Bot")), None)


def _login() -> str | None:
    """Return whose token it is; the one that a job has is a bot's, which may not ask."""
    try:
        return _gh("user", "--jq", ".login").strip() or None
    except CannotRunError:
        return None


def _gh(*words: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 (no shell; each word is one argument)
            ["gh", "api", *words],  # noqa: S607 (where a runner keeps it is the runner's to say)
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise CannotRunError(f"gh did not answer: {fault}", remedy="install the GitHub CLI on the runner") from fault
    if done.returncode:
        what = done.stderr.strip() or f"gh ended with {done.returncode}"
        raise CannotRunError(what, remedy="give the job `permissions: pull-requests: write`")
    return done.stdout


def _one_line(text: str) -> str:
    return " ".join(text.split())


_COMMANDS: Final[Mapping[str, Callable[[Environment], int]]] = {"report": report, "comment": comment}


def main(words: Sequence[str], env: Environment) -> int:
    """Run one of the steps by its name."""
    try:
        if len(words) != 1 or words[0] not in _COMMANDS:
            raise BadInputError(f"no step {' '.join(words)!r}", remedy=f"one of {', '.join(_COMMANDS)}")
        return _COMMANDS[words[0]](env)
    except SwayError as fault:
        print(f"sway: {fault.one_line()}", file=sys.stderr)  # noqa: T201 (as above)
        return int(fault.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
