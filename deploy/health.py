"""Ask a part on this machine whether it is well: `python health.py [PORT] [PATH]`; exit code 1 where it is not.

8787 /health (the default): a Dask scheduler or worker. 4200 /api/health: a Prefect server, without its auth string.
8080 /health: a Prefect worker started --with-healthcheck.
"""

import sys
import urllib.request

port, path = (*sys.argv[1:], "8787", "/health")[:2] if len(sys.argv) < 3 else sys.argv[1:3]
try:
    # through no proxy: it is this very machine
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        sys.exit(answer.status != 200)
except OSError as error:
    sys.exit(f"{port}{path}: {error}")
