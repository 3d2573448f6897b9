// Built-in kinds by the typed API: verbs, refusals, the four patches, and controllers' answers.

import assert from "node:assert/strict";

import * as k8s from "@kubernetes/client-node";

import { gone, refused, until } from "./world.mjs";

const as = (strategy) => k8s.setHeaderOptions("Content-Type", strategy);

const configMap = (name, data = {}, labels = {}) => ({ metadata: { name, labels }, data });

export const objects = {
  "the version is one of Kubernetes 1.36": async ({ config }) => {
    const code = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.deepEqual([code.major, code.minor], ["1", "36"]);
    const groups = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
    assert.ok(groups.groups.some((group) => group.name === "apps"));
    assert.equal(await new k8s.Health(config).readyz({}), true);
  },

  "a ConfigMap is created, read, replaced, listed and deleted": async ({ core, namespace }) => {
    const body = configMap("plain", { colour: "red" }, { app: "verbs" });
    const made = await core.createNamespacedConfigMap({ namespace, body });
    assert.ok(made.metadata.uid && made.metadata.creationTimestamp instanceof Date);
    made.data.colour = "blue";
    const replaced = await core.replaceNamespacedConfigMap({ namespace, name: "plain", body: made });
    assert.notEqual(replaced.metadata.resourceVersion, made.metadata.resourceVersion);
    const found = await core.readNamespacedConfigMap({ namespace, name: "plain" });
    assert.deepEqual(found.data, { colour: "blue" });
    const listed = await core.listNamespacedConfigMap({ namespace, labelSelector: "app in (verbs)" });
    assert.deepEqual(listed.items.map((item) => item.metadata.name), ["plain"]);
    const status = await core.deleteNamespacedConfigMap({ namespace, name: "plain" });
    assert.deepEqual([status.status, status.details.uid], ["Success", made.metadata.uid]);
  },

  "AlreadyExists, Conflict, NotFound, Invalid with its causes, BadRequest": async ({ core, namespace }) => {
    const first = await core.createNamespacedConfigMap({ namespace, body: configMap("twice") });
    const again = await refused(409, "AlreadyExists", core.createNamespacedConfigMap({ namespace, body: configMap("twice") }));
    assert.equal(again.message, 'configmaps "twice" already exists');
    await core.replaceNamespacedConfigMap({ namespace, name: "twice", body: configMap("twice", { a: "1" }) });
    const late = await refused(409, "Conflict", core.replaceNamespacedConfigMap({ namespace, name: "twice", body: first }));
    assert.match(late.message, /the object has been modified/);
    const none = await refused(404, "NotFound", core.readNamespacedSecret({ namespace, name: "none" }));
    assert.equal(none.message, 'secrets "none" not found');
    const service = { metadata: { name: "bad" }, spec: { ports: [{ port: 70000 }], type: "Sometimes" } };
    const invalid = await refused(422, "Invalid", core.createNamespacedService({ namespace, body: service }));
    const fields = invalid.causes.map(([, field]) => field);
    assert.ok(fields.includes("spec.ports[0].port") && fields.includes("spec.type"), JSON.stringify(invalid));
    const odd = core.createNamespacedConfigMap({ namespace, body: configMap("odd"), fieldValidation: "Perhaps" });
    await refused(422, "Invalid", odd);
  },

  "a dry run answers as the real one would, and leaves nothing": async ({ core, namespace }) => {
    const said = await core.createNamespacedConfigMap({ namespace, body: configMap("dry"), dryRun: "All" });
    assert.ok(said.metadata.uid);
    await refused(404, "NotFound", core.readNamespacedConfigMap({ namespace, name: "dry" }));
  },

  "a list is read page by page": async ({ core, namespace }) => {
    const names = ["page-0", "page-1", "page-2", "page-3", "page-4"];
    for (const name of names) {
      await core.createNamespacedConfigMap({ namespace, body: configMap(name, {}, { app: "pages" }) });
    }
    const found = [];
    let page = { metadata: {} };
    do {
      page = await core.listNamespacedConfigMap({
        namespace, labelSelector: "app=pages", limit: 2, _continue: page.metadata._continue,
      });
      found.push(...page.items.map((item) => item.metadata.name));
    } while (page.metadata._continue);
    assert.deepEqual(found, names);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: "app=pages" });
    const left = await core.listNamespacedConfigMap({ namespace, labelSelector: "app=pages" });
    assert.deepEqual(left.items, []);
  },

  "JSON, merge and strategic merge patches": async ({ apps, namespace, image }) => {
    const labels = { app: "patched" };
    const body = {
      metadata: { name: "patched" },
      spec: {
        replicas: 0,
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { containers: [{ name: "main", image }] } },
      },
    };
    await apps.createNamespacedDeployment({ namespace, body });
    const patch = (body, strategy) => apps.patchNamespacedDeployment({ namespace, name: "patched", body }, as(strategy));
    const containers = (of) => of.spec.template.spec.containers.map((container) => container.name);
    const pod = (containers) => ({ spec: { template: { spec: { containers } } } });
    const merged = await patch(pod([{ name: "side", image }]), k8s.PatchStrategy.StrategicMergePatch);
    assert.deepEqual(containers(merged).sort(), ["main", "side"]);
    const replaced = await patch(pod([{ name: "other", image }]), k8s.PatchStrategy.MergePatch);
    assert.deepEqual(containers(replaced), ["other"]);
    const path = "/spec/template/spec/containers/0/name";
    const stepwise = await patch([{ op: "replace", path, value: "last" }], k8s.PatchStrategy.JsonPatch);
    assert.deepEqual(containers(stepwise), ["last"]);
    const wrong = patch([{ op: "test", path, value: "first" }], k8s.PatchStrategy.JsonPatch);
    await refused(422, "Invalid", wrong);
    await refused(415, "UnsupportedMediaType", patch({}, "application/json"));
    await apps.deleteNamespacedDeployment({ namespace, name: "patched" });
  },

  "server-side apply: two owners, their conflict, force": async ({ core, namespace }) => {
    const apply = (fieldManager, data, force) => core.patchNamespacedConfigMap({
      namespace, name: "applied", fieldManager, force,
      body: { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "applied" }, data },
    }, as(k8s.PatchStrategy.ServerSideApply));
    await apply("one", { a: "1", b: "1" });
    assert.deepEqual((await apply("two", { c: "2" })).data, { a: "1", b: "1", c: "2" });
    const conflict = await refused(409, "Conflict", apply("two", { a: "2" }));
    assert.deepEqual(conflict.causes, [["FieldManagerConflict", ".data.a"]]);
    const forced = await apply("two", { a: "2" }, true);
    assert.deepEqual(forced.data, { a: "2", b: "1" });
    const managers = forced.metadata.managedFields.map((entry) => `${entry.manager} ${entry.operation}`);
    assert.deepEqual(managers.sort(), ["one Apply", "two Apply"]);
    await refused(422, "Invalid", apply(undefined, {}));
  },

  "a Deployment rolls out, is scaled, and goes with all that is its own": async (world) => {
    const { apps, namespace, image } = world;
    const labels = { app: "web" };
    const template = {
      metadata: { labels },
      spec: { terminationGracePeriodSeconds: 1, containers: [{ name: "main", image }] },
    };
    const body = { metadata: { name: "web" }, spec: { replicas: 2, selector: { matchLabels: labels }, template } };
    await apps.createNamespacedDeployment({ namespace, body });
    const path = `/apis/apps/v1/namespaces/${namespace}/deployments`;
    const only = { fieldSelector: "metadata.name=web" };
    await until(world, path, (_, found) => found.status?.availableReplicas === 2, only);
    const scale = await apps.readNamespacedDeploymentScale({ namespace, name: "web" });
    scale.spec.replicas = 1;
    await apps.replaceNamespacedDeploymentScale({ namespace, name: "web", body: scale });
    await until(world, path, (_, found) => found.status.observedGeneration === 2 && found.status.replicas === 1, only);
    await apps.deleteNamespacedDeployment({ namespace, name: "web", propagationPolicy: "Foreground" });
    await gone(world, path, "web", (only) => apps.listNamespacedDeployment({ namespace, ...only }));
    const left = await apps.listNamespacedReplicaSet({ namespace, labelSelector: "app=web" });
    assert.deepEqual(left.items, []);
  },
};
