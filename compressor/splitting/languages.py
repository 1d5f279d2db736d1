"""Programming languages: only what a lexer needs to tell where a line really ends and how deep it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRIPLE_DOUBLE = r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"""|\Z)'
_TRIPLE_SINGLE = r"'''(?:[^'\\]|\\.|'(?!''))*+(?:'''|\Z)"
_DOUBLE = r'"(?:[^"\\\n]|\\.)*+"?'
_SINGLE = r"'(?:[^'\\\n]|\\.)*+'?"
_CHARACTER = r"'(?:[^'\\\n]|\\[^\n]{1,8}?)'"  # "'a" alone is a lifetime, or a digit's separator
_BRACKETS = r"[(\[{}\])]"
_LINE_END = r"\\\n|\n"
_HASH = r"\#[^\n]*+"
_SLASHES = r"//[^\n]*+|/\*.*?(?:\*/|\Z)"


@dataclass(frozen=True, slots=True)
class Language:
    """How one family of languages is read. `tokens` matches strings, comments, brackets and line ends, and nothing else.

    `braces`: depth is counted in braces; else it is indentation. `comment` opens a line comment: what stands for an
    omission. `clause`: what begins a line that goes on with the statement before (else, catch, a closing bracket).
    `attached`: a whole line that belongs to the statement under it (comment, decorator, annotation), of which those that
    begin with one of `remarks` are only comments.
    """

    name: str
    tags: frozenset[str]
    tokens: re.Pattern[str]
    braces: bool
    comment: str
    clause: re.Pattern[str]
    attached: re.Pattern[str]
    remarks: tuple[str, ...]


def _language(
    name: str, tags: str, tokens: tuple[str, ...], braces: bool, comment: str, clause: str, attached: str
) -> Language:
    remarks = ("//", "/*") if braces else (comment, "/*")
    lexer, whole = re.compile("|".join(tokens), re.DOTALL), re.compile(attached, re.DOTALL)
    return Language(name, frozenset(tags.split()), lexer, braces, comment, re.compile(clause), whole, remarks)


_REGEX = r"(?:(?<=[(,=:\[!&|?{};])|(?<=return))[ \t]*/(?![/*])(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*+\])++/"
_OPERATOR = r"[.?:,=<>%|&]|\+(?!\+)|-(?!-)|/(?![/*])"  # a line that begins with one goes on with the line before
_BRACE_CLAUSE = _OPERATOR + r"|\}|\)|\]|(?:else|catch|finally)\b|while\s*\([^\n]*\)\s*;"
_BRACE_ATTACHED = r"//[^\n]*|/\*.*\*/|@[\w.]+\s?(?:\([^;{}]*\))?|\#\[.*\]|\[[A-Z]\w*.*\]"

PYTHON = _language(
    "python",
    "python py python3 pycon starlark bazel",
    (
        _TRIPLE_DOUBLE,
        _TRIPLE_SINGLE,
        _DOUBLE,
        _SINGLE,
        _HASH,
        _BRACKETS,
        _LINE_END,
    ),
    False,
    "#",
    r"(?:elif|else|except|finally)\b",
    r"@.*|\#[^\n]*",
)
SCRIPT = _language(
    "script",
    "javascript js jsx typescript ts tsx php dart mjs vue svelte groovy",
    (_SLASHES, _DOUBLE, _SINGLE, r"`(?:[^`\\]|\\.)*+`?", _REGEX, _BRACKETS, _LINE_END),
    True,
    "//",
    _BRACE_CLAUSE,
    _BRACE_ATTACHED,
)
BRACES = _language(
    "braces",
    "c cpp c++ h hpp cc cs csharp c# java kotlin kt go golang rust rs swift scala objc proto solidity zig css scss less hcl "
    "terraform tf d v",
    (
        _SLASHES,
        _TRIPLE_DOUBLE,
        r'\br(\#{1,3})".*?(?:"\1|\Z)',
        _DOUBLE,
        _CHARACTER,
        r"`[^`]*+`?",
        _BRACKETS,
        _LINE_END,
    ),
    True,
    "//",
    _BRACE_CLAUSE,
    _BRACE_ATTACHED,
)
ENDS = _language(
    "ends",
    "ruby rb bash sh shell zsh console fish yaml yml toml ini conf dockerfile makefile make perl r julia elixir ex crystal nim "
    "powershell ps1 graphql text txt",
    (_TRIPLE_DOUBLE, _TRIPLE_SINGLE, _HASH, _DOUBLE, _SINGLE, _BRACKETS, _LINE_END),
    False,
    "#",
    r"(?:end|fi|done|esac|else|elsif|elif|rescue|ensure|when|then|do|catch|finally)\b|[})\]]",
    r"\#[^\n]*",
)
DASHES = _language(
    "dashes",
    "sql lua haskell hs ada vhdl plsql psql mysql sqlite elm",
    (r"--[^\n]*+|/\*.*?(?:\*/|\Z)", _DOUBLE, _SINGLE, _BRACKETS, _LINE_END),
    False,
    "--",
    r"(?:end|else|elseif|until|then)\b|[})\];]",
    r"--[^\n]*|/\*.*\*/",
)
LANGUAGES = (PYTHON, SCRIPT, BRACES, ENDS, DASHES)

_PYTHON_LINE = re.compile(
    r"^\s*(?:def \w+\(.*|class \w+.*:|from [\w.]+ import .*|import [\w., ]+|elif .*:|except.*:|with .*:|async def .*|@\w[\w.]*.*"
    r"|if .*:|for .* in .*:|try:|else:|while .*:|print\(.*|self\..*)$",
    re.MULTILINE,
)
_BRACE_LINE = re.compile(r"^.*(?:;|[\w)>\]\"]\s?\{|=>\s?\{)\s*$|^\s*\{\s*$", re.MULTILINE)
_SCRIPT_LINE = re.compile(
    r"^\s*(?:const |let |var |function\b|export |import .* from |<\?php|.*=>\s|\$\w|module\.exports)", re.MULTILINE
)
_END_LINE = re.compile(r"^\s*(?:end|fi|done|esac)\s*$", re.MULTILINE)
_DASHES_LINE = re.compile(
    r"^\s*(?:--\s|(?:SELECT|INSERT|CREATE|UPDATE|DELETE|ALTER|FROM|WHERE)\b|local \w+ =)", re.MULTILINE
)
_HASH_REMARK = re.compile(r"^\s*#\s", re.MULTILINE)
_ASIDE = re.compile(
    rf"""[rRbBuUfF]{{0,2}}(?:{_TRIPLE_DOUBLE}|{_TRIPLE_SINGLE})|(?<![*\w"'])/\*.*?(?:\*/|\Z)""", re.DOTALL
)
_READ_CHARS = 60_000
_SAMPLE_CHARS = 8000


def language_named(tag: str) -> Language | None:
    """The row whose tags (as after a Markdown fence) hold `tag`; None where none does."""
    return next((language for language in LANGUAGES if tag.lower() in language.tags), None)


def language_of_code(code: str) -> Language:
    """The row that a stretch of code looks like most."""
    # strings and comments that run over lines hold prose, or code of another language
    sample = _ASIDE.sub("", code[:_READ_CHARS])[:_SAMPLE_CHARS]
    python, ends, dashes, braces, script = (
        len(lines.findall(sample)) for lines in (_PYTHON_LINE, _END_LINE, _DASHES_LINE, _BRACE_LINE, _SCRIPT_LINE)
    )
    remarks = len(_HASH_REMARK.findall(sample))  # no language with braces has them
    if max(braces, script) > max(2 * python, ends, dashes, remarks):
        return SCRIPT if script * 6 > braces else BRACES
    if python and python >= max(ends, dashes):
        return PYTHON
    return DASHES if dashes > ends else ENDS
