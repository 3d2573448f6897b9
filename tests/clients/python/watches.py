"""Watches: order and versions of events, the way on after 410, informers, and a leader's lock."""

import json
import queue
import threading

from kubernetes import watch
from kubernetes.client import ApiException
from kubernetes.informer import SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

from world import LIMIT, same

WATCHED = {"label_selector": "app=watched"}


def change(world):
    """Creates, changes and deletes one object."""
    core, namespace = world.core, world.namespace
    core.create_namespaced_config_map(namespace, world.config_map("watched", {"app": "watched"}, a="1"))
    core.patch_namespaced_config_map("watched", namespace, {"data": {"a": "2"}})
    core.delete_namespaced_config_map("watched", namespace)


def from_a_version(world):
    """a watch from a list's version tells each change after it, in order"""
    core, namespace = world.core, world.namespace
    start = core.list_namespaced_config_map(namespace, **WATCHED).metadata.resource_version
    change(world)
    watcher, told = watch.Watch(), []
    for event in watcher.stream(core.list_namespaced_config_map, namespace, resource_version=start,
                                timeout_seconds=LIMIT, **WATCHED):
        told.append((event["type"], event["object"].data["a"]))
        if event["type"] == "DELETED":
            break
    same(told, [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")])
    versions = int(watcher.resource_version), int(start)
    assert versions[0] > versions[1], versions


def times_out(world):
    """a watch ends when its time is over, after a bookmark for who asked for them"""
    core, namespace = world.core, world.namespace
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    watcher = watch.Watch()
    events = list(watcher.stream(core.list_namespaced_config_map, namespace, timeout_seconds=1,
                                 resource_version=start, allow_watch_bookmarks=True, **WATCHED))
    same({event["type"] for event in events} - {"BOOKMARK"}, set())
    assert int(watcher.resource_version) >= int(start), watcher.resource_version


def expired(world):
    """a forgotten version is 410 in the stream, and a new list begins again"""
    core, namespace = world.core, world.namespace
    try:
        for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version="1"):
            raise AssertionError(f"an event from before anything was: {event}")
    except ApiException as error:
        # The client says so of an event; of a refused request the body would be there.
        same((error.status, error.body), (410, None))
        assert "Expired: too old resource version" in error.reason, error.reason
    from_a_version(world)


def informer(world):
    """an informer's cache follows, and its handlers are called"""
    core, namespace = world.core, world.namespace
    told = queue.Queue()
    shared = SharedInformer(core.list_namespaced_config_map, namespace=namespace, **WATCHED)
    for kind in ("ADDED", "MODIFIED", "DELETED", "ERROR"):
        shared.add_event_handler(kind, lambda found, kind=kind: told.put((kind, found)))
    core.create_namespaced_config_map(namespace, world.config_map("before", {"app": "watched"}))
    shared.start()
    same(told.get(timeout=LIMIT)[0], "ADDED")
    change(world)
    same([told.get(timeout=LIMIT)[0] for _ in range(3)], ["ADDED", "MODIFIED", "DELETED"])
    same(shared.cache.list_keys(), [f"{namespace}/before"])
    shared.stop()


def leader(world):
    """a leader takes its lock"""
    leads = threading.Event()
    lock = ConfigMapLock("leader", world.namespace, "candidate-1")
    settings = electionconfig.Config(lock, lease_duration=17, renew_deadline=15, retry_period=5,
                                     onstarted_leading=leads.set, onstopped_leading=None)
    # It leads until the process ends: the client has no way to step down.
    threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()
    assert leads.wait(LIMIT), "nobody leads"
    held = world.core.read_namespaced_config_map("leader", world.namespace)
    record = json.loads(held.metadata.annotations["control-plane.alpha.kubernetes.io/leader"])
    same(record["holderIdentity"], "candidate-1")


STEPS = [from_a_version, times_out, expired, informer, leader]
