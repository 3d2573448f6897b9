"""Custom kinds, by the dynamic client and by CustomObjectsApi."""

import os

from kubernetes import client
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotFoundError

from world import LIMIT, gone, refused, same, until

GROUP = "python.pilotis.test"

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"boats.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "shortNames": ["bt"]},
        "versions": [{
            "name": "v1",
            "served": True,
            "storage": True,
            "subresources": {"status": {}, "scale": {
                "specReplicasPath": ".spec.oars", "statusReplicasPath": ".status.oars"}},
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {
                        "type": "object",
                        "required": ["oars"],
                        "properties": {
                            "oars": {"type": "integer", "minimum": 0},
                            "colour": {"type": "string", "default": "red"},
                        },
                        "x-kubernetes-validations": [
                            {"rule": "self.oars % 2 == 0", "message": "oars come in pairs"}],
                    },
                    "status": {"type": "object", "properties": {"oars": {"type": "integer"}}},
                },
            }},
        }],
    },
}


def boat(name, **spec):
    return {"apiVersion": f"{GROUP}/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec}


def definition(world):
    """a definition is made and its kind is found"""
    extensions = client.ApiextensionsV1Api()
    # Its default is a file of all runs', found by the server's address.
    dynamic = DynamicClient(world.api, cache_file=os.path.join(world.scratch.name, "discovery.json"))
    try:
        dynamic.resources.get(api_version=f"{GROUP}/v1", kind="Boat")
        raise AssertionError("there are boats already")
    except ResourceNotFoundError:
        pass
    extensions.create_custom_resource_definition(CRD)

    def established(found):
        conditions = found.status and found.status.conditions or []
        return any(c.type == "Established" and c.status == "True" for c in conditions)

    until(established, extensions.list_custom_resource_definition, field_selector=f"metadata.name=boats.{GROUP}")
    # The client's cache is asked again on a miss.
    world.boats = dynamic.resources.get(api_version=f"{GROUP}/v1", kind="Boat")
    same((world.boats.name, world.boats.namespaced), ("boats", True))
    assert {"boats/status", "boats/scale"} <= {f"boats/{name}" for name in world.boats.subresources}, world.boats.subresources


def dynamic(world):
    """the dynamic client writes, reads and is refused"""
    boats, namespace = world.boats, world.namespace
    made = boats.create(body=boat("one", oars=2), namespace=namespace)
    same((made.spec.colour, made.metadata.generation), ("red", 1))
    try:
        boats.create(body=boat("one", oars=2), namespace=namespace)
        raise AssertionError("made twice")
    except ConflictError as error:
        same(error.summary(), f'boats.{GROUP} "one" already exists')
    patched = boats.patch(body=boat("one", oars=4), namespace=namespace, content_type="application/merge-patch+json")
    same((patched.spec.oars, patched.metadata.generation), (4, 2))
    applied = boats.server_side_apply(body=boat("one", oars=6), namespace=namespace, field_manager="python",
                                      force_conflicts=True)
    same(applied.spec.oars, 6)
    status = boats.status.patch(name="one", namespace=namespace, body={"status": {"oars": 6}, "spec": {"oars": 0}},
                                content_type="application/merge-patch+json")
    same((status.status.oars, status.spec.oars, status.metadata.generation), (6, 6, 3))
    same(boats.scale.get(name="one", namespace=namespace).status.replicas, 6)
    events = boats.watch(namespace=namespace, name="one", resource_version=made.metadata.resourceVersion, timeout=LIMIT)
    same([(event["type"], event["object"].spec.oars) for event, _ in zip(events, range(2))],
         [("MODIFIED", 4), ("MODIFIED", 6)])
    boats.delete(name="one", namespace=namespace)
    try:
        boats.get(name="one", namespace=namespace)
        raise AssertionError("still there")
    except NotFoundError:
        pass


def untyped(world):
    """CustomObjectsApi writes, and refusals name their fields"""
    custom, namespace = client.CustomObjectsApi(), world.namespace
    where = {"group": GROUP, "version": "v1", "namespace": namespace, "plural": "boats"}
    custom.create_namespaced_custom_object(body=boat("two", oars=2), **where)
    with refused(422, "Invalid") as said:
        custom.create_namespaced_custom_object(body=boat("odd", oars=3), **where)
    same(said.causes, [("FieldValueInvalid", "spec")])
    assert "oars come in pairs" in said.message, said.message
    with refused(422, "Invalid") as said:
        custom.create_namespaced_custom_object(body=boat("none"), **where)
    same(said.causes[0], ("FieldValueRequired", "spec.oars"))
    custom.patch_namespaced_custom_object_status(name="two", body={"status": {"oars": 2}}, **where)
    found = custom.get_namespaced_custom_object(name="two", **where)
    same((found["spec"]["oars"], found["status"]["oars"]), (2, 2))
    names = [item["metadata"]["name"] for item in custom.list_namespaced_custom_object(**where)["items"]]
    same(names, ["two"])
    custom.delete_collection_namespaced_custom_object(**where)
    same(custom.list_namespaced_custom_object(**where)["items"], [])


def removed(world):
    """the definition goes, and its kind with it"""
    extensions = client.ApiextensionsV1Api()
    extensions.delete_custom_resource_definition(f"boats.{GROUP}")
    gone(extensions.list_custom_resource_definition, name=f"boats.{GROUP}")
    try:
        client.CustomObjectsApi().list_cluster_custom_object(GROUP, "v1", "boats")
        raise AssertionError("boats are still served")
    except client.ApiException as error:
        same(error.status, 404)


STEPS = [definition, dynamic, untyped, removed]
