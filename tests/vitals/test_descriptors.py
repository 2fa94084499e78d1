"""How many connections fit into the descriptors there are; in a process of its own, since limits do not go back up."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from broker.vitals.descriptors import room_for
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(room_for(wanted, 24), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "room", "raised"),
    [
        (256, 256, 100, 100, 256),  # there is enough
        (128, 4096, 100, 100, 156),  # 100 and 24, and 32 for all else
        (128, 4096, 2000, 2000, 2249),  # 2024, and a tenth of the whole for all else
        (256, 256, 10_000, 200, 256),  # less 24, less 32
        (256, 1000, 10_000, 876, 1000),  # less 24, less 100
    ],
)
def test_the_soft_limit_is_raised_as_need_be_and_the_rest_is_cut(
    soft: int, hard: int, wanted: int, room: int, raised: int
) -> None:
    command = [sys.executable, "-c", PROGRAM, *map(str, (soft, hard, wanted))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.split() == [str(room), str(raised), str(hard)]
    said = done.stderr.count("listen.max_connections is")
    assert said == (room < wanted)
