"""The operator that `kopf run` loads: it keeps a ConfigMap for each Ship, and counts what it is told."""

import kopf
from kubernetes import client, config

GROUP = "kopf.pilotis.test"


@kopf.on.startup()
def start(settings: kopf.OperatorSettings, **_):
    config.load_kube_config()
    settings.persistence.finalizer = f"{GROUP}/anchor"
    # Watches end often, so that the way from one to the next is walked.
    settings.watching.server_timeout = 2


@kopf.on.create("ships")
def create(spec, name, namespace, patch, **_):
    body = {"metadata": {"name": f"cargo-{name}"}, "data": {"size": str(spec["size"])}}
    kopf.adopt(body)
    client.CoreV1Api().create_namespaced_config_map(namespace, body)
    patch.status["size"] = spec["size"]
    return {"at": name}


@kopf.on.update("ships", field="spec.size")
def resize(old, new, body, name, namespace, patch, **_):
    client.CoreV1Api().patch_namespaced_config_map(f"cargo-{name}", namespace, {"data": {"size": str(new)}})
    patch.status["size"] = new
    patch.status["from"] = old
    kopf.info(body, reason="Resized", message=f"from {old} to {new}")


@kopf.on.delete("ships")
def sink(name, namespace, retry, **_):
    if retry == 0:
        raise kopf.TemporaryError("the first try is lost", delay=0.5)
    body = {"metadata": {"name": f"wreck-{name}"}, "data": {"tries": str(retry + 1)}}
    client.CoreV1Api().create_namespaced_config_map(namespace, body)


@kopf.timer("ships", interval=1)
def tick(status, patch, **_):
    patch.status["ticks"] = status.get("ticks", 0) + 1


@kopf.on.event("configmaps", labels={"port": "open"})
def seen(event, name, namespace, **_):
    if event["type"] == "ADDED":
        body = {"metadata": {"name": f"seen-{name}"}}
        client.CoreV1Api().create_namespaced_config_map(namespace, body)
