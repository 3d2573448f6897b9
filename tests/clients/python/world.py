"""What the steps share: the clients, the namespace NAMESPACE, the image IMAGE, and ways to wait and to be refused."""

import json
import os
import tempfile
from contextlib import contextmanager

from kubernetes import client, watch
from kubernetes.client import ApiException

# Seconds that anything may take; the machines of CI are slow.
LIMIT = 90


class World:
    def __init__(self):
        self.api = client.ApiClient()
        self.core = client.CoreV1Api()
        self.apps = client.AppsV1Api()
        self.scratch = tempfile.TemporaryDirectory()
        # One static busybox; the cluster's runtime has it.
        self.image = os.environ["IMAGE"]
        self.namespace = os.environ["NAMESPACE"]
        # Pods are refused until their account is there.
        until(lambda account: account.metadata.name == "default",
              self.core.list_namespaced_service_account, self.namespace)

    def config_map(self, name, labels=None, **data):
        return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)

    def pod(self, name, command, **spec):
        """A pod of one container, `main`."""
        main = client.V1Container(name="main", image=self.image, command=command)
        return client.V1Pod(metadata=client.V1ObjectMeta(name=name, labels={"app": name}),
                            spec=client.V1PodSpec(containers=[main], termination_grace_period_seconds=1, **spec))


def same(found, wanted):
    assert found == wanted, f"found {found!r}, wanted {wanted!r}"


def until(condition, listing, *args, **kwargs):
    """The first object of a watch that meets the condition."""
    watcher, last = watch.Watch(), None
    for event in watcher.stream(listing, *args, timeout_seconds=LIMIT, **kwargs):
        last = event["object"]
        if event["type"] != "DELETED" and condition(last):
            watcher.stop()
            return last
    raise AssertionError(f"not within {LIMIT} s; the last event was about {last}")


def gone(listing, *args, name, **kwargs):
    """Returns once the object of that name is not there."""
    kwargs["field_selector"] = f"metadata.name={name}"
    found = listing(*args, **kwargs)
    custom = isinstance(found, dict)
    if not (found["items"] if custom else found.items):
        return
    version = found["metadata"]["resourceVersion"] if custom else found.metadata.resource_version
    watcher = watch.Watch()
    for event in watcher.stream(listing, *args, timeout_seconds=LIMIT, resource_version=version, **kwargs):
        if event["type"] == "DELETED":
            watcher.stop()
            return
    raise AssertionError(f"{name} is still there after {LIMIT} s")


class Refusal:
    message = ""
    causes = ()


@contextmanager
def refused(status, reason):
    """The block must be refused so; what was said is in what it is given."""
    said = Refusal()
    try:
        yield said
    except ApiException as error:
        body = json.loads(error.body)
        same((error.status, body["kind"], body["reason"], body["code"]), (status, "Status", reason, status))
        said.message = body["message"]
        causes = body.get("details", {}).get("causes", [])
        said.causes = [(cause["reason"], cause.get("field")) for cause in causes]
    else:
        raise AssertionError(f"{reason} was expected, and nothing was refused")
