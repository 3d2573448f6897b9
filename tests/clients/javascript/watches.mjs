// Watches: order of events, the way on after 410, and informers.

import assert from "node:assert/strict";

import * as k8s from "@kubernetes/client-node";

import { LIMIT, until, within } from "./world.mjs";

const body = (name, data = {}) => ({ metadata: { name, labels: { app: "watched" } }, data });

const pathOf = (namespace) => `/api/v1/namespaces/${namespace}/configmaps`;

// Creates, changes and deletes one object.
async function change({ core, namespace }) {
  await core.createNamespacedConfigMap({ namespace, body: body("watched", { a: "1" }) });
  await core.replaceNamespacedConfigMap({ namespace, name: "watched", body: body("watched", { a: "2" }) });
  await core.deleteNamespacedConfigMap({ namespace, name: "watched" });
}

// Calls of an informer's handlers, to be taken one by one.
function callsOf(informer) {
  const told = [];
  const waiting = [];
  const tell = (kind) => (object) => {
    const call = [kind, object?.metadata?.name ?? object];
    waiting.length > 0 ? waiting.shift()(call) : told.push(call);
  };
  for (const kind of ["add", "update", "delete", "error"]) {
    informer.on(kind, tell(kind));
  }
  return () => within(LIMIT, "a call of a handler", new Promise((resolve) => {
    told.length > 0 ? resolve(told.shift()) : waiting.push(resolve);
  }));
}

export const watches = {
  "a watch from a list's version tells each change after it, in order": async (world) => {
    const { core, namespace } = world;
    const start = (await core.listNamespacedConfigMap({ namespace })).metadata.resourceVersion;
    await change(world);
    const told = [];
    const query = { resourceVersion: start, labelSelector: "app=watched" };
    await until(world, pathOf(namespace), (type, object) => {
      told.push([type, object.data.a]);
      return type === "DELETED";
    }, query);
    assert.deepEqual(told, [["ADDED", "1"], ["MODIFIED", "2"], ["DELETED", "2"]]);
  },

  "a watch ends when its time is over, after a bookmark for who asked for them": async (world) => {
    const { config, core, namespace } = world;
    const start = (await core.listNamespacedConfigMap({ namespace })).metadata.resourceVersion;
    const told = [];
    const query = { resourceVersion: start, timeoutSeconds: 1, allowWatchBookmarks: true };
    await new Promise((resolve, reject) => {
      const done = (error) => (error ? reject(error) : resolve());
      new k8s.Watch(config).watch(pathOf(namespace), query, (type) => told.push(type), done);
    });
    assert.ok(told.every((type) => type === "BOOKMARK"), `${told}`);
  },

  "a forgotten version is 410 in the stream": async (world) => {
    const said = await until(world, pathOf(world.namespace), (type) => type === "ERROR", { resourceVersion: "1" });
    assert.deepEqual([said.kind, said.code, said.reason], ["Status", 410, "Expired"]);
  },

  "an informer's cache follows, and begins again after 410": async (world) => {
    const { config, core, namespace } = world;
    await core.createNamespacedConfigMap({ namespace, body: body("before") });
    let lists = 0;
    const list = async () => {
      lists += 1;
      const listed = await core.listNamespacedConfigMap({ namespace, labelSelector: "app=watched" });
      if (lists === 1) {
        // As of a client that slept for long.
        listed.metadata.resourceVersion = "1";
      }
      return listed;
    };
    const informer = k8s.makeInformer(config, pathOf(namespace), list, "app=watched");
    const next = callsOf(informer);
    await informer.start();
    assert.deepEqual(await next(), ["add", "before"]);
    await change(world);
    // What happened before the second list shows only in what is left.
    await core.createNamespacedConfigMap({ namespace, body: body("after") });
    for (let call = []; call[1] !== "after"; ) {
      call = await next();
      assert.notEqual(call[0], "error", `${call[1]}`);
    }
    assert.equal(lists, 2);
    await core.replaceNamespacedConfigMap({ namespace, name: "after", body: body("after", { a: "1" }) });
    assert.deepEqual(await next(), ["update", "after"]);
    await core.deleteNamespacedConfigMap({ namespace, name: "before" });
    assert.deepEqual(await next(), ["delete", "before"]);
    assert.deepEqual(informer.list().map((item) => item.metadata.name), ["after"]);
    assert.equal(informer.get("after", namespace).data.a, "1");
    await informer.stop();
  },
};
