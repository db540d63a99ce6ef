#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: bash, having read the completions, offers all verbs, all options of each, and behind an
option what it takes; those of the other shells name every option, too.

Usage: test-completions.py TIDEMARK GENERATOR
"""
import json
import pathlib
import subprocess
import sys
import tempfile


def run(*argv, **how):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, **how).stdout


def main():
    program, generator = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for shell in ("bash", "zsh", "fish"):
            run(sys.executable, generator, program, shell, folder / shell)
        (folder / "there").mkdir()
        (folder / "there.xml").touch()

        def offered(*words):
            """What bash offers for the last of the words."""
            script = 'source ./bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tidemark; ' \
                     'printf "%s\\n" "${COMPREPLY[@]}"'
            return run("bash", "-c", script, "-", "tidemark", *words, cwd=folder).split()

        rows = [json.loads(line) for line in run(program, "--describe").splitlines()]
        verbs = {row["verb"] for row in rows if " " not in row["verb"]}
        assert verbs | {"--help", "--version"} == set(offered("")), offered("")
        assert offered("rest") == ["restore"]
        others = {shell: (folder / shell).read_text(encoding="utf-8") for shell in ("zsh", "fish")}
        for row in rows:
            if "options" not in row:
                continue
            options = {f"--{option['long']}" for option in row["options"]} | {"--help"}
            assert set(offered(*row["verb"].split(), "--")) == options, row["verb"]
            for shell, text in others.items():
                absent = [option for option in options if option.lstrip("-") not in text]
                assert not absent, f"{shell}: {row['verb']}: {absent}"
        assert offered("backup", "-r", "the") == ["there"]
        assert offered("backup", "--repository", "the") == ["there"]
        assert sorted(offered("backup", "--xml", "the")) == ["there", "there.xml"]
        assert offered("backup", "--mode", "f") == ["full"]
        assert sorted(offered("restore", "--format", "")) == ["qcow2", "raw"]
        assert offered("restore", "--disk", "") == []
    print("every verb and option is offered")


main()
