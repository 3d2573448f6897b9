"""An operator made with kopf: handlers, finalizer, status, timer, events, and work that waited for it."""

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager

from kubernetes import client

from kopf_handlers import GROUP
from world import LIMIT, gone, same, until

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"ships.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "ships", "singular": "ship", "kind": "Ship"},
        "versions": [{
            "name": "v1",
            "served": True,
            "storage": True,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }},
        }],
    },
}


@contextmanager
def operator(world):
    """`kopf run` in a process of its own; what it said is shown if the block fails."""
    handlers = os.path.join(os.path.dirname(__file__), "kopf_handlers.py")
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "--namespace", world.namespace, handlers]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
            same(process.poll(), None)
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read())
            raise
        finally:
            process.terminate()
            process.wait(LIMIT)


class Ships:
    """The ships of the run's namespace."""

    def __init__(self, world):
        self.custom = client.CustomObjectsApi()
        self.where = {"group": GROUP, "version": "v1", "namespace": world.namespace, "plural": "ships"}

    def until(self, condition):
        return until(condition, self.custom.list_namespaced_custom_object, **self.where)

    def gone(self, name):
        gone(self.custom.list_namespaced_custom_object, name=name, **self.where)

    def create(self, name, size):
        body = {"apiVersion": f"{GROUP}/v1", "kind": "Ship", "metadata": {"name": name}, "spec": {"size": size}}
        self.custom.create_namespaced_custom_object(body=body, **self.where)

    def resize(self, name, size):
        self.custom.patch_namespaced_custom_object(name=name, body={"spec": {"size": size}}, **self.where)


def status(found):
    return found.get("status", {})


def works(world):
    """an operator creates, updates, ticks, and tells of it in events"""
    extensions = client.ApiextensionsV1Api()
    extensions.create_custom_resource_definition(CRD)
    until(lambda found: any(c.type == "Established" for c in found.status and found.status.conditions or []),
          extensions.list_custom_resource_definition, field_selector=f"metadata.name=ships.{GROUP}")
    ships, core = Ships(world), world.core
    with operator(world):
        ships.create("argo", 1)
        found = ships.until(lambda ship: status(ship).get("create") == {"at": "argo"} and status(ship).get("size") == 1)
        same(found["metadata"]["finalizers"], [f"{GROUP}/anchor"])
        cargo = core.read_namespaced_config_map("cargo-argo", world.namespace)
        same(cargo.metadata.owner_references[0].uid, found["metadata"]["uid"])
        ships.resize("argo", 2)
        ships.until(lambda ship: (status(ship).get("size"), status(ship).get("from")) == (2, 1))
        same(core.read_namespaced_config_map("cargo-argo", world.namespace).data, {"size": "2"})
        ticks = status(ships.until(lambda _: True)).get("ticks", 0)
        ships.until(lambda ship: status(ship).get("ticks", 0) >= ticks + 2)
        until(lambda event: (event.reason, event.message) == ("Resized", "from 1 to 2"), core.list_namespaced_event, world.namespace,
              field_selector=f"involvedObject.kind=Ship,involvedObject.uid={found['metadata']['uid']}")
        core.create_namespaced_config_map(world.namespace, world.config_map("light", {"port": "open"}))
        until(lambda found: found.metadata.name == "seen-light", core.list_namespaced_config_map, world.namespace)


def catches_up(world):
    """an operator that was away does what it missed, and its finalizer holds what is deleted"""
    ships, core = Ships(world), world.core
    ships.resize("argo", 3)
    ships.custom.delete_namespaced_custom_object(name="argo", **ships.where)
    waiting = ships.until(lambda _: True)
    assert waiting["metadata"]["deletionTimestamp"], waiting
    ships.create("beagle", 5)
    with operator(world):
        ships.gone("argo")
        ships.until(lambda ship: ship["metadata"]["name"] == "beagle" and status(ship).get("size") == 5)
        same(core.read_namespaced_config_map("wreck-argo", world.namespace).data, {"tries": "2"})
        # It goes with its owner.
        gone(core.list_namespaced_config_map, world.namespace, name="cargo-argo")
        ships.custom.delete_namespaced_custom_object(name="beagle", **ships.where)
        ships.gone("beagle")
    client.ApiextensionsV1Api().delete_custom_resource_definition(f"ships.{GROUP}")


STEPS = [works, catches_up]
