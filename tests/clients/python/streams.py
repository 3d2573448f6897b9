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
    echo = run(world, "cat", stdin=True, _preload_content=False)
    echo.write_stdin("to the end")
    echo.close_channel(0)
    echo.run_forever(timeout=LIMIT)
    same((echo.read_stdout(), echo.returncode), ("to the end", 0))
    missing = run(world, "no-such-program", _preload_content=False)
    missing.run_forever(timeout=LIMIT)
    same(json.loads(missing.read_channel(3))["status"], "Failure")


def terminal(world):
    """a terminal has one output, whether it has input or not"""
    command = ["sh", "-c", "echo shown; echo wrong >&2"]
    same(run(world, *command, tty=True), "shown\r\nwrong\r\n")
    same(run(world, *command, tty=True, stdin=True), "shown\r\nwrong\r\n")


def handshakes(world):
    """a handshake that is refused is answered with the reason"""
    core, namespace = world.core, world.namespace
    token = core.create_namespaced_service_account_token("default", namespace, client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(audiences=[])))
    nobody = client.Configuration()
    nobody.host, nobody.ssl_ca_cert = world.api.configuration.host, world.api.configuration.ssl_ca_cert
    nobody.api_key = {"authorization": f"Bearer {token.status.token}"}
    ended = world.pod("ended", ["sh", "-c", "exit 0"], restart_policy="Never")
    core.create_namespaced_pod(namespace, ended)
    until(lambda pod: pod.status.phase == "Succeeded", core.list_namespaced_pod, namespace,
          field_selector="metadata.name=ended")
    for api, name, container, code, reason in [
        (world.api, "none", "main", 404, "NotFound"),
        (world.api, "streams", "other", 400, "BadRequest"),
        (world.api, "ended", "main", 400, "BadRequest"),
        (client.ApiClient(nobody), "streams", "main", 403, "Forbidden"),
    ]:
        try:
            stream(client.CoreV1Api(api).connect_get_namespaced_pod_exec, name, namespace, container=container,
                   command=["true"], stdout=True, _preload_content=False)
        except (client.ApiException, AttributeError) as error:
            # The client looks for a body that its own exception never has, and trips: that exception is the context then.
            told = error.__context__ if isinstance(error, AttributeError) else error
            # All it was told is in one sentence: what happened, the headers, the body.
            said, _, body = told.reason.split(" -+-+- ")
            assert said.startswith(f"Handshake status {code} "), said
            status = json.loads(body)
            same((status["kind"], status["reason"], status["code"]), ("Status", reason, code))
        else:
            raise AssertionError(f"exec in {name}/{container} was not refused with {code}")


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


STEPS = [running, logs, exec_, terminal, handshakes, attach, forward, evicted]
