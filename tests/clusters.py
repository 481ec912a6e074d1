"""Clusters of processes on this machine."""

import json
import os
import socket


def environments(count=2):
    """For each process of a cluster its environment: TF_CONFIG with ports that are free, and what else is set here."""
    ports = []
    for _ in range(count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return [{**os.environ, "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})}
            for index in range(count)]
