"""S3 servers on 127.0.0.1 for the tests, each a command that prints ``ready PORT`` and dies with its parent.

``python serve_s3.py swift FOLDER`` is OpenStack Swift with its S3 interface, as four processes. Rings, settings and devices
stand in FOLDER, which must be on a filesystem with extended attributes (ext4, xfs, btrfs; tmpfs since Linux 6.6). The sockets
are bound before the rings that name them are written, and handed to the processes, so no port is ever guessed.

``python serve_s3.py moto`` is moto's server, as one process that keeps everything in memory.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
from pathlib import Path

USER, KEY = "test:tester", "testing"
LARGEST_OBJECT = 5 * 2**30 + 2
_BACKENDS = ("account", "container", "object")
_SET_PARENT_DEATH_SIGNAL = 1

_COMMON = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
log_level = ERROR
"""
_PROXY = """
[pipeline:main]
pipeline = catch_errors listing_formats s3api tempauth bulk slo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
log_level = ERROR

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:listing_formats]
use = egg:swift#listing_formats

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false

[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {key} .admin

[filter:bulk]
use = egg:swift#bulk

[filter:slo]
use = egg:swift#slo
"""
_BACKEND = """
[pipeline:main]
pipeline = {name}-server

[app:{name}-server]
use = egg:swift#{name}
"""
_SWIFT = """
[swift-hash]
swift_hash_path_suffix = tests

[swift-constraints]
max_file_size = {largest}

[storage-policy:0]
name = one
default = yes
"""


def serve_swift(folder: Path) -> None:
    """Start the four servers of Swift, say so, and wait."""
    sockets = {name: _listen() for name in (*_BACKENDS, "proxy")}
    ports = {name: listener.getsockname()[1] for name, listener in sockets.items()}
    (folder / "devices" / "disk").mkdir(parents=True)
    (folder / "swift.conf").write_text(_SWIFT.format(largest=LARGEST_OBJECT))
    for name, port in ports.items():
        text = _COMMON.format(folder=folder, port=port)
        text += _PROXY.format(key=KEY) if name == "proxy" else _BACKEND.format(name=name)
        (folder / f"{name}.conf").write_text(text)
    _write_rings(folder, ports)
    ready_read, ready_write = os.pipe()
    for name, listener in sockets.items():
        if os.fork() == 0:
            _die_with_parent()
            os.close(ready_read)
            _serve(folder / f"{name}.conf", listener, ready_write)
            os._exit(0)
    os.close(ready_write)
    told = b""
    while len(told) < len(sockets):
        piece = os.read(ready_read, 1)
        if not piece:
            sys.exit("a Swift server ended while it was starting")
        told += piece
    print(f"ready {ports['proxy']}", flush=True)
    os.wait()
    sys.exit("a Swift server ended")


def serve_moto() -> None:
    """Start moto's server, say so, and wait."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(f"ready {server.get_host_and_port()[1]}", flush=True)
    threading.Event().wait()


def _die_with_parent() -> None:
    # The kernel kills this process when its parent ends, however that ends.
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _write_rings(folder: Path, ports: dict[str, int]) -> None:
    from swift.common.ring import RingBuilder

    for name in _BACKENDS:
        # One part of one replica on one device.
        ring = RingBuilder(part_power=1, replicas=1, min_part_hours=0)
        ring.add_dev(
            {"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": ports[name], "device": "disk", "weight": 1}
        )
        ring.rebalance(seed=1)
        ring.get_ring().save(str(folder / f"{name}.ring.gz"))


def _serve(conf_file: Path, listener: socket.socket, ready: int) -> None:
    from eventlet.green import socket as green_socket
    from swift.common import wsgi

    conf, logger, global_conf, _ = wsgi.check_config(str(conf_file), f"{conf_file.stem}-server")
    green = green_socket.fromfd(listener.fileno(), socket.AF_INET, socket.SOCK_STREAM)
    wsgi.run_server(conf, logger, green, global_conf=global_conf, ready_callback=lambda: os.write(ready, b"."))


if __name__ == "__main__":
    _die_with_parent()
    if sys.argv[1] == "swift":
        serve_swift(Path(sys.argv[2]))
    else:
        serve_moto()
