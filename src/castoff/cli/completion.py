"""castoff completion: prints a script that completes verbs, options and images in bash, zsh or fish."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from castoff.cli.root import store_root
from castoff.errors import CastoffError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from castoff.cli.outline import Option, VerbOutline
    from castoff.cli.parser import Parser

_SHELLS = ("bash", "zsh", "fish")
_REFERENCES = "references"


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `castoff completion`."""
    parser.add_argument("shell", metavar="SHELL", help="bash, zsh or fish")


def run(args: Namespace) -> int:
    """Print the script, and return the exit code."""
    if args.shell == _REFERENCES:  # what the scripts ask for
        sys.stdout.writelines(name + "\n" for name in _references(args))
        return 0
    if args.shell not in _SHELLS:
        raise UsageError(f"there is no completion for {args.shell!r}", hint=f"there is one for {', '.join(_SHELLS)}")
    from castoff.cli.outline import outline

    verbs = outline()
    script = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[args.shell]
    sys.stdout.write(script(verbs))
    return 0


def _references(args: Namespace) -> list[str]:
    """Return the references of the images in the store; none where there is no store, or it can't be read."""
    from castoff.store.directory import DirectoryStore

    try:
        with DirectoryStore.open_(store_root(args.root, os.environ), create=False) as store:
            return sorted({record.name for record in store.images if record.reference is not None})
    except CastoffError:
        return []


def _names(options: tuple[Option, ...], *, valued: bool | None = None) -> str:
    return " ".join(name for option in options if valued in (None, bool(option.value)) for name in option.names)


def _kind(verb: VerbOutline) -> str:
    """Return what the arguments of a verb are, for completion: images, containers, or files."""
    names = {argument.name.partition("[")[0] for argument in verb.arguments}
    if names & {"IMAGE", "REPOSITORY", "SOURCE", "TARGET"}:
        return "images"
    if "CONTAINER" in names:
        return "containers"
    if "SHELL" in names:
        return "shells"
    return "files" if names else "none"


_BASH = """\
# bash completion for castoff; made by castoff completion bash
_castoff() {
    local line=${COMP_LINE:0:COMP_POINT}
    local cur=${line##*[[:space:]]} prev= verb= first= options= valued= kind=none word words=()
    COMPREPLY=()
    # Words as the shell gives them to castoff: bash itself breaks them at ":" and "=" too.
    read -ra words <<<"${line%"$cur"}"
    local skip=
    for word in "${words[@]:1}"; do
        prev=$word
        if [[ -n $skip ]]; then skip=; continue; fi
        case $word in
        --root) [[ -z $verb ]] && skip=1 ;;
        -*) ;;
        *)
            if [[ -z $verb ]]; then
                case $word in
                __GROUPS__) if [[ -z $first ]]; then first=$word; continue; fi ;;
                esac
                verb=${first:+$first }$word
                first=
            fi
            ;;
        esac
    done
    if [[ -z $verb ]]; then
        case $first in
__SECOND__
        *) COMPREPLY=($(compgen -W "__FIRST__ --root --version --help" -- "$cur")) ;;
        esac
        return
    fi
    case $verb in
__VERBS__
    esac
    if [[ " $valued " == *" $prev "* ]]; then
        COMPREPLY=($(compgen -f -- "$cur"))
        compopt -o filenames 2>/dev/null
        return
    fi
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
        return
    fi
    case $kind in
    images) COMPREPLY=($(compgen -W "$(castoff completion references 2>/dev/null)" -- "$cur")) ;;
    containers) COMPREPLY=($(compgen -W "$(castoff ps -aq 2>/dev/null)" -- "$cur")) ;;
    shells) COMPREPLY=($(compgen -W "bash zsh fish" -- "$cur")) ;;
    files)
        COMPREPLY=($(compgen -f -- "$cur"))
        compopt -o filenames 2>/dev/null
        ;;
    esac
    # What stands before the last ":" is a word of its own for bash, and stays.
    if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local kept=${cur%"${cur##*:}"} index
        for index in "${!COMPREPLY[@]}"; do COMPREPLY[index]=${COMPREPLY[index]#"$kept"}; done
    fi
}
complete -F _castoff castoff
"""


def bash_script(verbs: tuple[VerbOutline, ...]) -> str:
    """Return the script for bash."""
    firsts, groups = _words(verbs)
    second = "\n".join(
        f'        {first}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur")) ;;'
        for first, words in groups.items()
    )
    cases = "\n".join(
        f"    {_quoted(verb.name)}) kind={_kind(verb)} options='{_names(verb.options)}' "
        f"valued='{_names(verb.options, valued=True)}' ;;"
        for verb in verbs
    )
    text = _BASH.replace("__GROUPS__", "|".join(groups) or "''").replace("__SECOND__", second)
    return text.replace("__FIRST__", " ".join(firsts)).replace("__VERBS__", cases)


def _words(verbs: tuple[VerbOutline, ...]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the first words of verbs, and for those that need another word what that may be."""
    groups: dict[str, list[str]] = {}
    for verb in verbs:
        first, _, second = verb.name.partition(" ")
        if second:
            groups.setdefault(first, []).append(second)
    return list(dict.fromkeys(verb.name.partition(" ")[0] for verb in verbs)), groups


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_ZSH = """\
#compdef castoff
# zsh completion for castoff; made by castoff completion zsh
_castoff() {
    local verb= first= word
    local -a verbs options seconds
    local -A skip
    integer i
    for ((i = 2; i < CURRENT; i++)); do
        word=${words[i]}
        case $word in
        --root) ((i++)) ;;
        -*) ;;
        *)
            if [[ -z $verb ]]; then
                if [[ -z $first && $word == (__GROUPS__) ]]; then first=$word; continue; fi
                verb=${first:+$first }$word
                first=
            fi
            ;;
        esac
    done
    if [[ -z $verb ]]; then
        case $first in
__SECOND__
        *)
            verbs=(
__FIRST__
            )
            _describe 'verb' verbs
            ;;
        esac
        return
    fi
    case $verb in
__VERBS__
    esac
}
_castoff_references() {
    local -a found
    found=(${(f)"$(castoff completion references 2>/dev/null)"})
    found=(${found//:/\\\\:})
    _describe 'image' found
}
_castoff_containers() {
    local -a found
    found=(${(f)"$(castoff ps -aq 2>/dev/null)"})
    _describe 'container' found
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _castoff "$@"; else compdef _castoff castoff; fi
"""
_ZSH_KINDS = {
    "images": "_castoff_references",
    "containers": "_castoff_containers",
    "files": "_files",
    "shells": "compadd bash zsh fish",
    "none": "_message 'no arguments'",
}


def zsh_script(verbs: tuple[VerbOutline, ...]) -> str:
    """Return the script for zsh."""
    _firsts, groups = _words(verbs)
    texts = {verb.name: verb.text for verb in verbs}
    first = [(name, texts.get(name, f"{name} {' and '.join(groups.get(name, ()))}")) for name in _firsts]
    lines = "\n".join(f"                {_described(name, text)}" for name, text in first)
    second = "\n".join(_zsh_second(name, words, texts) for name, words in groups.items())
    cases = "\n".join(_zsh_case(verb) for verb in verbs)
    text = _ZSH.replace("__GROUPS__", "|".join(groups) or "''").replace("__SECOND__", second)
    return text.replace("__FIRST__", lines).replace("__VERBS__", cases)


def _zsh_second(first: str, words: list[str], texts: dict[str, str]) -> str:
    described = " ".join(_described(word, texts[f"{first} {word}"]) for word in words)
    return f"        {first})\n            seconds=({described})\n            _describe 'verb' seconds\n            ;;"


def _zsh_case(verb: VerbOutline) -> str:
    options = "\n".join(
        f"            {_described(name, option.text)}" for option in verb.options for name in option.names
    )
    valued = _names(verb.options, valued=True).replace(" ", "|")
    return (
        f"    {_quoted(verb.name)})\n"
        f"        if [[ ${{words[CURRENT-1]}} == ({valued}) ]]; then _files; return; fi\n"
        f"        options=(\n{options}\n        )\n"
        "        if [[ ${words[CURRENT]} == -* ]]; then _describe -o 'option' options; return; fi\n"
        f"        {_ZSH_KINDS[_kind(verb)]}\n"
        "        ;;"
    )


def _described(name: str, text: str) -> str:
    return _quoted(f"{name}:{text}".replace("\n", " "))


def fish_script(verbs: tuple[VerbOutline, ...]) -> str:
    """Return the script for fish."""
    return "\n".join(_fish_lines(verbs)) + "\n"


def _fish_lines(verbs: tuple[VerbOutline, ...]) -> Iterator[str]:
    firsts, groups = _words(verbs)
    texts = {verb.name: verb.text for verb in verbs}
    yield "# fish completion for castoff; made by castoff completion fish"
    yield "complete -c castoff -e"
    yield "complete -c castoff -n __fish_use_subcommand -l root -r -d 'folder of the store'"
    for name in firsts:
        text = texts.get(name, "")
        yield f"complete -c castoff -f -n __fish_use_subcommand -a {name} -d {_fish(text)}"
    for name, words in groups.items():
        for word in words:
            when = f"__fish_seen_subcommand_from {name}; and not __fish_seen_subcommand_from {' '.join(words)}"
            yield f"complete -c castoff -f -n {_fish(when)} -a {word} -d {_fish(texts[f'{name} {word}'])}"
    sources = {
        "images": "-f -a '(castoff completion references 2>/dev/null)'",
        "containers": "-f -a '(castoff ps -aq 2>/dev/null)'",
        "shells": "-f -a 'bash zsh fish'",
        "files": "-F",
        "none": "-f",
    }
    for verb in verbs:
        when = _fish("; and ".join(f"__fish_seen_subcommand_from {word}" for word in verb.name.split()))
        yield f"complete -c castoff -n {when} {sources[_kind(verb)]}"
        for option in verb.options:
            spelled = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = " -r" if option.value else ""
            yield f"complete -c castoff -n {when} {spelled}{value} -d {_fish(option.text)}"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ") + "'"
