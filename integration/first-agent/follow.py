"""Follows a guide: starts `avouch up`, runs each command of the page as it is printed, and compares what it says.

A line with `$ ` begins a command, lines with `> ` go on with it, and what stands below is what it prints; a line that ends in
`...` says only how it begins. Prints how long the reader's commands took.
"""

import os
import re
import subprocess
import sys
import time


def steps(page):
    """The commands of all blocks `console`, each with what stands below it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", page, re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append([line[2:], []])
            elif line.startswith(">"):
                found[-1][0] += "\n" + line[1:].removeprefix(" ")
            else:
                found[-1][1].append(line)
    return found


def same(printed, said):
    if len(printed) != len(said):
        return False
    fits = lambda p, s: s.startswith(p[:-3]) if p.endswith("...") else p == s
    return all(map(fits, printed, said))


def main(guide, place):
    up = subprocess.Popen(["avouch", "up"], stdout=subprocess.PIPE, text=True)
    environment = dict(os.environ, HOME=place)
    for line in up.stdout:
        environment.update(re.findall(r"(SPI\w+)=(\S+)", line))
        if "avouch init" in line:
            break
    failed = False
    begun = time.monotonic()
    commands = steps(open(guide).read())
    try:
        for command, printed in commands:
            ran = subprocess.run(
                ["sh", "-c", f"exec 2>&1\n{command}"],
                cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
            )
            said = ran.stdout.splitlines()
            first = command.splitlines()[0]
            if same(printed, said):
                print(f"ok    {first}")
            else:
                failed = True
                print(f"FAIL  {first}\nprinted:\n" + "\n".join(printed) + "\nsaid:\n" + "\n".join(said))
                break
    finally:
        up.terminate()
        up.wait()
    print(f"{len(commands)} commands of {os.path.basename(guide)} in {time.monotonic() - begun:.1f} s")
    sys.exit(1 if failed else 0)


main(sys.argv[1], sys.argv[2])
