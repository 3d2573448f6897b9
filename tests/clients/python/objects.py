"""Built-in kinds by the typed API: verbs, refusals, the four patches, and controllers' answers."""

import io

import yaml
from kubernetes import client, utils

from world import gone, refused, same, until


def version(world):
    """the version is one of Kubernetes 1.36"""
    code = client.VersionApi().get_code()
    same((code.major, code.minor), ("1", "36"))
    groups = {group.name for group in client.ApisApi().get_api_versions().groups}
    assert {"apps", "batch", "coordination.k8s.io"} <= groups, groups


def verbs(world):
    """a ConfigMap is created, read, replaced, listed and deleted"""
    core, namespace = world.core, world.namespace
    made = core.create_namespaced_config_map(namespace, world.config_map("plain", {"app": "verbs"}, colour="red"))
    assert made.metadata.uid and made.metadata.resource_version and made.metadata.creation_timestamp.tzinfo
    made.data["colour"] = "blue"
    replaced = core.replace_namespaced_config_map("plain", namespace, made)
    same(core.read_namespaced_config_map("plain", namespace).data, {"colour": "blue"})
    assert replaced.metadata.resource_version != made.metadata.resource_version
    listed = core.list_namespaced_config_map(namespace, label_selector="app=verbs,app notin (other)")
    same([item.metadata.name for item in listed.items], ["plain"])
    gone = core.delete_namespaced_config_map("plain", namespace)
    same((gone.status, gone.details.name, gone.details.uid), ("Success", "plain", made.metadata.uid))


def refusals(world):
    """AlreadyExists, Conflict, NotFound, Invalid with its causes, BadRequest"""
    core, namespace = world.core, world.namespace
    first = core.create_namespaced_config_map(namespace, world.config_map("twice"))
    with refused(409, "AlreadyExists") as said:
        core.create_namespaced_config_map(namespace, world.config_map("twice"))
    same(said.message, 'configmaps "twice" already exists')
    core.patch_namespaced_config_map("twice", namespace, {"data": {"a": "1"}})
    with refused(409, "Conflict") as said:
        core.replace_namespaced_config_map("twice", namespace, first)
    assert "the object has been modified" in said.message, said.message
    with refused(409, "Conflict"):
        wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="0"))
        core.delete_namespaced_config_map("twice", namespace, body=wrong)
    with refused(404, "NotFound") as said:
        core.read_namespaced_secret("none", namespace)
    same(said.message, 'secrets "none" not found')
    with refused(422, "Invalid") as said:
        core.create_namespaced_config_map(namespace, world.config_map("Not_A_Name"))
    same(said.causes, [("FieldValueInvalid", "metadata.name")])
    with refused(422, "Invalid") as said:
        core.create_namespaced_pod(namespace, client.V1Pod(
            metadata=client.V1ObjectMeta(name="bad"),
            spec=client.V1PodSpec(restart_policy="Sometimes", containers=[client.V1Container(name="main")])))
    fields = {field for _, field in said.causes}
    assert "spec.restartPolicy" in fields, said.causes
    with refused(400, "BadRequest"):
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "odd"}, "dta": {}},
                                          field_validation="Strict")


def dry_run(world):
    """a dry run answers as the real one would, and leaves nothing"""
    core, namespace = world.core, world.namespace
    said = core.create_namespaced_config_map(namespace, world.config_map("dry"), dry_run="All")
    assert said.metadata.uid, said
    with refused(404, "NotFound"):
        core.read_namespaced_config_map("dry", namespace)


def pages(world):
    """a list is read page by page while others write"""
    core, namespace = world.core, world.namespace
    for number in range(7):
        core.create_namespaced_config_map(namespace, world.config_map(f"page-{number}", {"app": "pages"}))
    names, more = [], None
    while more != "":
        page = core.list_namespaced_config_map(namespace, label_selector="app=pages", limit=3, _continue=more)
        names += [item.metadata.name for item in page.items]
        more = page.metadata._continue or ""
        core.create_namespaced_config_map(namespace, world.config_map(f"page-6-{len(names)}", {"app": "pages"}))
    same(names, [f"page-{number}" for number in range(7)])
    core.delete_collection_namespaced_config_map(namespace, label_selector="app=pages")
    same(core.list_namespaced_config_map(namespace, label_selector="app=pages").items, [])


def patches(world):
    """strategic merge, merge and JSON patches"""
    core, apps, namespace = world.core, world.apps, world.namespace
    labels = {"app": "patched"}
    container = client.V1Container(name="main", image=world.image)
    apps.create_namespaced_deployment(namespace, client.V1Deployment(
        metadata=client.V1ObjectMeta(name="patched"),
        spec=client.V1DeploymentSpec(
            replicas=0, selector=client.V1LabelSelector(match_labels=labels),
            template=client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=labels),
                                              spec=client.V1PodSpec(containers=[container])))))
    # A dictionary is sent as a strategic merge patch, a list as a JSON patch.
    side = {"name": "side", "image": world.image}
    body = {"spec": {"template": {"spec": {"containers": [side, {"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}}
    patched = apps.patch_namespaced_deployment("patched", namespace, body)
    containers = {found.name: found for found in patched.spec.template.spec.containers}
    same((set(containers), containers["main"].image, containers["main"].env[0].value),
         ({"main", "side"}, world.image, "1"))
    body = {"spec": {"template": {"spec": {"containers": [{"$patch": "delete", "name": "side"}]}}}}
    patched = apps.patch_namespaced_deployment("patched", namespace, body)
    same([found.name for found in patched.spec.template.spec.containers], ["main"])
    patched = apps.patch_namespaced_deployment("patched", namespace, [
        {"op": "test", "path": "/metadata/name", "value": "patched"},
        {"op": "add", "path": "/metadata/annotations", "value": {"note": "json"}}])
    same(patched.metadata.annotations["note"], "json")
    patched = apps.patch_namespaced_deployment("patched", namespace, {"metadata": {"annotations": {"note": None}}},
                                               _content_type="application/merge-patch+json")
    assert "note" not in (patched.metadata.annotations or {}), patched.metadata
    with refused(422, "Invalid"):
        apps.patch_namespaced_deployment("patched", namespace, [{"op": "test", "path": "/kind", "value": "no"}])
    with refused(422, "Invalid") as said:
        apps.patch_namespaced_deployment("patched", namespace, {"spec": {"selector": {"matchLabels": {"app": "x"}}}})
    assert ("FieldValueInvalid", "spec.selector") in said.causes, said.causes
    apps.delete_namespaced_deployment("patched", namespace)


def applies(world):
    """server-side apply: two owners, their conflict, force"""
    core, namespace = world.core, world.namespace

    def apply(manager, data, **options):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}
        return core.patch_namespaced_config_map("applied", namespace, body, field_manager=manager,
                                                _content_type="application/apply-patch+yaml", **options)

    apply("one", {"a": "1", "b": "1"})
    same(apply("two", {"c": "2"}).data, {"a": "1", "b": "1", "c": "2"})
    with refused(409, "Conflict") as said:
        apply("two", {"a": "2", "c": "2"})
    same(said.causes, [("FieldManagerConflict", ".data.a")])
    assert 'conflict with "one"' in said.message, said.message
    same(apply("two", {"a": "2"}, force=True).data, {"a": "2", "b": "1"})
    owners = {entry.manager: entry.fields_v1["f:data"] for entry in apply("one", {"b": "1"}).metadata.managed_fields}
    same(owners, {"one": {"f:b": {}}, "two": {"f:a": {}}})


MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: IMAGE}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"""


def deployment(world):
    """a manifest is created, rolls out, is scaled, and goes with all that is its own"""
    core, apps, namespace = world.core, world.apps, world.namespace
    documents = yaml.safe_load_all(io.StringIO(MANIFEST.replace("IMAGE", world.image)))
    utils.create_from_yaml(world.api, yaml_objects=list(documents), namespace=namespace)
    only = {"field_selector": "metadata.name=web"}
    until(lambda found: found.status.available_replicas == 2, apps.list_namespaced_deployment, namespace, **only)
    assert core.read_namespaced_service("web", namespace).spec.cluster_ip
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 1}})
    scale = apps.read_namespaced_deployment_scale("web", namespace)
    same((scale.spec.replicas, scale.status.selector), (1, "app=web"))
    until(lambda found: found.status.replicas == 1 and found.status.observed_generation == 2,
          apps.list_namespaced_deployment, namespace, **only)
    apps.delete_namespaced_deployment("web", namespace, propagation_policy="Foreground")
    gone(apps.list_namespaced_deployment, namespace, name="web")
    same(apps.list_namespaced_replica_set(namespace, label_selector="app=web").items, [])


STEPS = [version, verbs, refusals, dry_run, pages, patches, applies, deployment]
