"""Documents are in plain technical English: the phrases of this table, and private metaphors, are held out of them.

The subject comes first, the fact, then the reason. A word of the left column of a table is found in any case, also over
the end of a line; `then` says what to write.
"""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: what is held to it: folders and files, from the root of the repository
COVERED = ("docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "automl_pt")
#: parts of the package that are not rewritten yet
NOT_YET: tuple[str, ...] = ()
SUFFIXES = {".md", ".py", ".svg"}
#: made from the package, whose own words are held to the table where they are written
GENERATED = {"commands.md", "settings.md", "errors.md", "hooks.md", "plugin-values.md"}

#: phrase -> what to write
PHRASES = {
    "goes on with": "resumes, continues with",
    "go on with": "resume, continue with",
    "going on with": "resuming",
    "gone on with": "resumed",
    "went on with": "resumed",
    "is gone on": "is resumed",
    "left out": "removed, skipped, not used",
    "leaves out": "removes, skips",
    "as they lie": "in place; already",
    "befell": "happened to",
    "nobody shall": "state what happens, in the present tense",
    "shall be": "is, must be",
    "that bars": "that blocks",
    "bars the way": "blocks",
    "the greediest": "the largest requirement",
    "does not mend": "non-retryable",
    "is none,": "not a valid ...",
    "that is none": "not a valid ...",
    "none is, unasked": "default: none",
    "unasked": "by default; without an option",
    "asked nobody": "without a request",
    "must be there": "not found; is required",
    "a mistake leaves": "an invalid ... leaves",
    "would stop training or falsify": "No problems found",
    "with care": "consider ...",
    "inside the noise": "statistically tied",
    "outside the noise": "clearly ahead",
    "from a probability on": "if only confident answers are accepted",
    "spoke for": "supported",
    "spoke against": "was evidence against",
    "speaks for": "supports",
    "take apart": "separate",
    "by heart": "memorised",
    "is told": "is reported, receives",
    "are told": "are reported, receive",
    "told of": "reported",
    "tells of": "reports",
    "is said": "a note says so",
    "are said": "notes say so",
    "may tell": "may state",
    "at hand": "available",
    "as one likes": "any",
    "whoever": "name the actor",
    "torn apart": "split",
    "of one's own": "own, custom",
    "of an earlier day": "earlier",
    "in turns told": "reported alternately",
    "worth the": "is useful because",
    "mended": "corrected",
    "set aside": "moved to",
    "in vain": "without effect",
    "begin anew": "start from the beginning",
    "made anew": "made again",
    "goes on from": "resumes from",
    "go on from": "resume from",
    "it goes on": "it continues",
    "going on": "continuing",
    "may go on": "may continue",
    "go on to": "continue to",
    "begun anew": "started again",
    "be told": "receive",
    "told nothing": "not called",
    "what was said": "what was reported",
    "and said": "with a note",
    "nobody": "no process, no user; or state what happens",
    "somebody": "name the actor",
    "everybody": "all",
    "anyone else": "name the actor",
    "has begun": "has started",
    "had begun": "had started",
    "was begun": "was started",
    "put back": "restored",
    "puts back": "restores",
    "puts aside": "renames",
    "of its own making": "its own",
    "to be there": "to exist",
    "are there now": "exist now",
    "in the way of": "conflicts with",
    "stands in the way": "blocks, conflicts",
    "taken for": "counts as",
    "takes for": "considers",
    "as it is asked": "as requested",
    "as asked": "as requested",
    "is asked for": "is requested",
    "was asked for": "was requested",
    "none of ours": "not ours",
    "is no number": "is not a number",
    "must be readable": "name the fault: is not readable",
    "must be intact": "name the fault: is damaged",
    "must be whole": "name the fault: is incomplete",
    "tell of": "report",
    "telling of": "reporting",
    "what it gave": "its result",
    "what a search gave": "the result of a search",
    "before its time": "early",
    "all the same": "anyway",
    "for good": "finally, permanently",
    "in words that help": "explained",
    "as good as": "equivalent to",
    "out of competition": "not competing",
    "nothing shall": "state what happens, in the present tense",
    "shall say": "says",
    "shall search": "searches",
}
#: metaphors of earlier versions -> the field's words; word forms are found, too
METAPHORS = {
    r"in miniature": "proxy run, low-fidelity",
    r"strangers?": "foreign trials, third-party plugins, other people",
    r"shel(?:f|ves)": "model store",
    r"ledgers?": "trial store",
    r"fenced?\b(?! code)": "fencing token",
    r"excused?": "grace for the default",
    r"entrants?": "cohort",
    r"standings?": "progress",
    r"flatness": "plateau",
    r"greedy|greedily(?! recipe)": "name the rule",
    r"climbs?": "is promoted",
    r"judged?": "evaluated, compared",
    r"verdict of": "decision",
    r"attic|maze|rooms?\b": "package, module",
    r"zygotes?": "forked worker",
    r"looks? at the validation": "validation at a rung",
}
#: where a word of the table is right: names of files and functions, and terms of others
ALLOWED = (
    r"search_rivals",
    r"rivals\.md",
    r"docs/evidence/rivals",
    r"test_strangers",
    r"strangers/",
    r"`[^`\n]*`",
    r"greedy recipe",
    r"room for",
    r"fenced? (?:blocks?|the lines)",
    r"NOBODY",
    r"\{[^{}\n]*\}",
)


def texts() -> dict[str, str]:
    found = {}
    for name in COVERED:
        place = ROOT / name
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            relative = str(path.relative_to(ROOT))
            if relative.startswith(NOT_YET):
                continue
            if path.suffix in SUFFIXES and path.name not in GENERATED and "hooks" not in path.parts:
                found[relative] = path.read_text()
    return found


TEXTS = texts()


def prose(name: str, text: str) -> str:
    """Return a text without code; its lines keep their numbers."""
    if name.endswith(".py"):
        text = words_of(text)
    if name.endswith(".md"):
        text = re.sub(r"^ *```.*?^ *```", lambda block: "\n" * block[0].count("\n"), text, flags=re.S | re.M)
    return re.sub("|".join(ALLOWED), "", text)


def words_of(source: str) -> str:
    """Return the comments, docstrings and messages of Python source, in their lines; a text of one word is a name."""
    lines = [[" "] * len(line) for line in source.split("\n")]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_text = token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1))
        if not is_text or not re.search(r"\s", token.string.strip("\"' ")):
            continue
        for number, part in enumerate(token.string.split("\n")):
            column = token.start[1] if number == 0 else 0
            clean = re.sub(r"^[rbfu]*[\"']+|[\"'#]+", lambda quotes: " " * len(quotes[0]), part)
            lines[token.start[0] - 1 + number][column : column + len(clean)] = clean
    return "\n".join("".join(line) for line in lines)


def found(name: str, text: str) -> list[str]:
    table = {rf"\b{re.escape(phrase)}": then for phrase, then in PHRASES.items()}
    table |= {rf"\b(?:{metaphor})\b": then for metaphor, then in METAPHORS.items()}
    text = prose(name, text)
    return [
        f"{name}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]!r}: write {then}"
        for pattern, then in table.items()
        for hit in re.finditer(pattern.replace(r"\ ", r"\s+"), text, re.I)
    ]


def test_what_is_covered_is_there() -> None:
    assert [name for name in COVERED if not (ROOT / name).exists()] == []
    assert len(TEXTS) > 30


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_plain(name: str) -> None:
    assert found(name, TEXTS[name]) == []


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("x.md", "First.\nThe study goes\non with its trials.", 2),
        ("x.py", "# one\n# the run that is none\n", 2),
        ("x.py", 'raise Error("the study goes "\n    "on with it")\n', 1),
        ("x.py", '"""Head.\n\nIt happens in miniature.\n"""\n', 3),
    ],
)
def test_a_phrase_is_found(name: str, text: str, line: int) -> None:
    assert [hit.startswith(f"{name}:{line}: ") for hit in found(name, text)] == [True]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.md", "```text\nthe study goes on with it\n```\n`goes on with`\n"),
        ("x.py", "ledger = rivals['standings']\n"),
        ("x.md", "The study resumes, because its trials are stored."),
    ],
)
def test_code_and_plain_text_are_not(name: str, text: str) -> None:
    assert found(name, text) == []
