"""Logs, exec, attach and port-forward of a running pod."""

import json
from datetime import datetime

from kubernetes import client
from kubernetes.stream import portforward, stream

from world import LIMIT, gone, refused, same, until

# Serves its own page, and tells standard input back. Its log is three lines.
SCRIPT = """
echo page > /tmp/index.html; httpd -p 8080 -h /tmp
for n in 1 2 3; do echo line $n; done
while read -r line; do echo "heard $line"; done
"""


def running(world):
    """a pod is scheduled and runs"""
    pod = world.pod("streams", ["sh", "-c", SCRIPT])
    pod.spec.containers[0].stdin = True
    world.core.create_namespaced_pod(world.namespace, pod)

    def ready(found):
        return any(c.type == "Ready" and c.status == "True" for c in found.status.conditions or [])

    found = until(ready, world.core.list_namespaced_pod, world.namespace, field_selector="metadata.name=streams")
    same((found.status.phase, found.status.container_statuses[0].restart_count), ("Running", 0))


def log(world, **options):
    # What the client makes of the text itself is a string of Python's notation for bytes.
    answer = world.core.read_namespaced_pod_log("streams", world.namespace, _preload_content=False, **options)
    return answer.data.decode()


def logs(world):
    """logs are read, cut, stamped and followed"""
    core, namespace = world.core, world.namespace
    # What a container has said reaches the file a moment later.
    follow = core.read_namespaced_pod_log("streams", namespace, follow=True, _preload_content=False)
    same([follow.readline() for _ in range(3)], [b"line 1\n", b"line 2\n", b"line 3\n"])
    follow.close()
    same(log(world, tail_lines=1), "line 3\n")
    stamp, rest = log(world, timestamps=True, tail_lines=1).split(" ", 1)
    assert datetime.fromisoformat(stamp[:19]), stamp
    same(rest, "line 3\n")
    same(log(world, limit_bytes=4), "line")
    with refused(400, "BadRequest"):
        core.read_namespaced_pod_log("streams", namespace, container="other")
    with refused(404, "NotFound"):
        core.read_namespaced_pod_log("none", namespace)


def run(world, *command, **options):
    options = {"stdout": True, "stderr": True, "stdin": False, "tty": False, **options}
    return stream(world.core.connect_get_namespaced_pod_exec, "streams", world.namespace, command=list(command), **options)


def exec_(world):
    """commands run, with their output, input and exit code"""
    same(run(world, "cat", "/tmp/index.html"), "page\n")
    talk = run(world, "sh", "-c", "read line; echo $line; echo wrong >&2; exit 3", stdin=True, _preload_content=False)
    talk.write_stdin("hello\n")
    talk.run_forever(timeout=LIMIT)
    same((talk.read_stdout(), talk.read_stderr(), talk.returncode), ("hello\n", "wrong\n", 3))
    missing = run(world, "no-such-program", _preload_content=False)
    missing.run_forever(timeout=LIMIT)
    same(json.loads(missing.read_channel(3))["status"], "Failure")


def attach(world):
    """attach speaks with the container itself"""
    talk = stream(world.core.connect_get_namespaced_pod_attach, "streams", world.namespace,
                  stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
    talk.write_stdin("you\n")
    same(talk.readline_stdout(timeout=LIMIT), "heard you")
    talk.close()


def forward(world):
    """a port is forwarded, and one that nobody listens on says so"""
    wires = portforward(world.core.connect_get_namespaced_pod_portforward, "streams", world.namespace, ports="8080,9")
    wire = wires.socket(8080)
    wire.settimeout(LIMIT)
    wire.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
    answer = b""
    while part := wire.recv(4096):
        answer += part
    assert answer.startswith(b"HTTP/1.") and answer.endswith(b"\r\n\r\npage\n"), answer
    same(wires.error(8080), None)
    closed = wires.socket(9)
    closed.settimeout(LIMIT)
    same(closed.recv(1), b"")
    assert "connection refused" in wires.error(9).lower(), wires.error(9)


def evicted(world):
    """an eviction ends the pod, within its grace"""
    core, namespace = world.core, world.namespace
    core.create_namespaced_pod_eviction("streams", namespace, client.V1Eviction(
        metadata=client.V1ObjectMeta(name="streams", namespace=namespace)))
    gone(core.list_namespaced_pod, namespace, name="streams")


STEPS = [running, logs, exec_, attach, forward, evicted]
