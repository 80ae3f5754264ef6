"""A connection to Ray: workers on this machine that nobody else can use, or those of a cluster."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TOKEN = secrets.token_hex(32)  # one per process: Ray keeps the first one for all of its sessions
_STORE_BYTES = 100 * 2**20  # size of the object store; jobs return small objects only


@contextmanager
def ray_session(workers: int, address: str = "") -> Iterator[Any]:
    """The module `ray`, connected; workers of this machine end with the session, or with this process.

    Args:
        workers: Number of workers on this machine.
        address: Address of a Ray cluster, or "" for this machine.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no usage statistics are sent
    if not address:
        os.environ |= {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps Ray to the loopback interface, on Linux as well
            "RAY_AUTH_MODE": "token",  # only this process can submit jobs
            "RAY_AUTH_TOKEN": _TOKEN,  # otherwise Ray writes one to the home folder
            "RAY_worker_niceness": "0",  # by default workers have a lower priority than other programs
        }
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "Jobs side by side need Ray, which is not installed: pip install 'segmed[cluster]', or -r "
            "requirements-cluster.txt in a checkout. Or run one job at a time."
        ) from error

    temporary = "" if address else tempfile.mkdtemp(prefix="segmed-ray-")
    try:
        if address:
            try:
                ray.init(address, log_to_driver=False)
            except Exception as error:
                raise ValueError(
                    f"There is no Ray cluster at {address!r} ({error!s:.200}). Start one with `ray start "
                    "--head`, or leave --ray-address out to use this machine."
                ) from error
        else:
            ray.init(
                "local",
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=temporary,
            )
        yield ray
    finally:
        ray.shutdown()
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
