// What the steps share: the clients, the namespace NAMESPACE, the image IMAGE, and ways to wait and to be refused.

import assert from "node:assert/strict";

import * as k8s from "@kubernetes/client-node";

// Milliseconds that anything may take; the machines of CI are slow.
export const LIMIT = 90_000;

export async function openWorld() {
  const config = new k8s.KubeConfig();
  config.loadFromDefault();
  const core = config.makeApiClient(k8s.CoreV1Api);
  const world = {
    config,
    core,
    apps: config.makeApiClient(k8s.AppsV1Api),
    objects: k8s.KubernetesObjectApi.makeApiClient(config),
    namespace: process.env.NAMESPACE,
    // One static busybox; the cluster's runtime has it.
    image: process.env.IMAGE,
  };
  // Pods are refused until their account is there.
  await until(world, `/api/v1/namespaces/${world.namespace}/serviceaccounts`, (_, found) => found.metadata.name === "default");
  return world;
}

// Rejects when `promise` takes longer than `limit` milliseconds.
export function within(limit, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${limit} ms`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// The first object of a watch of `path` of which `condition(type, object)` holds.
export async function until(world, path, condition, query = {}) {
  const last = {};
  let request;
  const found = new Promise((resolve, reject) => {
    const told = (type, object) => {
      Object.assign(last, { type, object });
      if (condition(type, object)) {
        resolve(object);
      }
    };
    const done = (error) => reject(error ?? new Error(`the watch ended; its last event: ${JSON.stringify(last)}`));
    request = new k8s.Watch(world.config).watch(path, query, told, done);
  });
  try {
    return await within(LIMIT, `the condition on ${path}`, found);
  } finally {
    (await request).abort();
  }
}

// Returns once nothing of that name is there; `list` answers the list of `path` for a query.
export async function gone(world, path, name, list) {
  const only = { fieldSelector: `metadata.name=${name}` };
  const listed = await list(only);
  if (listed.items.length > 0) {
    const query = { ...only, resourceVersion: listed.metadata.resourceVersion };
    await until(world, path, (type) => type === "DELETED", query);
  }
}

// What the promise must be refused with: the Status, whose causes are `[reason, field]`.
export async function refused(code, reason, promise) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof k8s.ApiException, `not an ApiException: ${error}`);
    const status = typeof error.body === "string" ? JSON.parse(error.body) : error.body;
    assert.deepEqual([error.code, status.kind, status.reason, status.code], [code, "Status", reason, code]);
    const causes = (status.details?.causes ?? []).map((cause) => [cause.reason, cause.field]);
    return { message: status.message, causes };
  }
  throw new Error(`${reason} was expected, and nothing was refused`);
}
