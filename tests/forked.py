"""What the process runs that is forked for one call of the command line. See Emb.run in conftest.py."""

import atexit
import os
import sys

from emb.cli import main
from emb.pipeline import measuring, rounds

# No test asks how fast a file is, and a build's seconds of measuring are a third of it.
measuring.WARM_UP_S, measuring.MEASURE_S, measuring.LEAST_RUNS = 0.0, 0.1, 5
rounds.WARM_UP_S = 0.0

request = globals()["request"]  # given by runpy.run_path
for stream, name in ((1, "stdout"), (2, "stderr")):
    written = os.open(request[name], os.O_WRONLY)
    os.dup2(written, stream)
    os.close(written)
os.chdir(request["home"])
os.environ.clear()
os.environ.update(request["environment"])
sys.argv = ["-c", *request["arguments"]]
try:
    main()
finally:
    atexit._run_exitfuncs()  # multiprocessing ends its processes without
