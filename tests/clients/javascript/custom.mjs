// Custom kinds: by the API of any object, and by CustomObjectsApi.

import assert from "node:assert/strict";

import * as k8s from "@kubernetes/client-node";

import { gone, refused, until } from "./world.mjs";

const GROUP = "javascript.pilotis.test";
const DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

const definition = {
  metadata: { name: `kites.${GROUP}` },
  spec: {
    group: GROUP,
    scope: "Namespaced",
    names: { plural: "kites", singular: "kite", kind: "Kite" },
    versions: [{
      name: "v1",
      served: true,
      storage: true,
      subresources: { status: {} },
      schema: {
        openAPIV3Schema: {
          type: "object",
          properties: {
            spec: {
              type: "object",
              required: ["tail"],
              properties: {
                tail: { type: "integer", minimum: 1 },
                // The client's names for what JavaScript has other words for.
                colour: { type: "string", _enum: ["red", "blue"], _default: "red" },
              },
            },
            status: { type: "object", properties: { flies: { type: "boolean" } } },
          },
        },
      },
    }],
  },
};

const kite = (name, spec) => ({ apiVersion: `${GROUP}/v1`, kind: "Kite", metadata: { name }, spec });

export const custom = {
  "a definition is made and established": async (world) => {
    await world.config.makeApiClient(k8s.ApiextensionsV1Api).createCustomResourceDefinition({ body: definition });
    const established = (_, found) => (found.status?.conditions ?? [])
      .some((condition) => condition.type === "Established" && condition.status === "True");
    await until(world, DEFINITIONS, established, { fieldSelector: `metadata.name=kites.${GROUP}` });
  },

  "CustomObjectsApi writes, and refusals name their fields": async ({ config, namespace }) => {
    const api = config.makeApiClient(k8s.CustomObjectsApi);
    const where = { group: GROUP, version: "v1", plural: "kites", namespace };
    const made = await api.createNamespacedCustomObject({ ...where, body: kite("one", { tail: 1, string: "pruned" }) });
    assert.deepEqual(made.spec, { tail: 1, colour: "red" });
    const wrong = kite("two", { tail: 0, colour: "green" });
    const invalid = await refused(422, "Invalid", api.createNamespacedCustomObject({ ...where, body: wrong }));
    const fields = invalid.causes.map(([reason, field]) => `${reason} ${field}`).sort();
    assert.deepEqual(fields, ["FieldValueInvalid spec.tail", "FieldValueNotSupported spec.colour"]);
    const one = { ...where, name: "one" };
    const body = [{ op: "replace", path: "/spec/tail", value: 2 }];
    const json = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.JsonPatch);
    const patched = await api.patchNamespacedCustomObject({ ...one, body }, json);
    assert.deepEqual([patched.spec.tail, patched.metadata.generation], [2, 2]);
    const status = await api.replaceNamespacedCustomObjectStatus({
      ...one, body: { ...patched, status: { flies: true }, spec: { tail: 9 } },
    });
    assert.deepEqual([status.status, status.spec.tail, status.metadata.generation], [{ flies: true }, 2, 2]);
    const strategic = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.StrategicMergePatch);
    await refused(415, "UnsupportedMediaType", api.patchNamespacedCustomObject({ ...one, body: {} }, strategic));
    const listed = await api.listNamespacedCustomObject(where);
    assert.deepEqual(listed.items.map((item) => item.metadata.name), ["one"]);
  },

  "the API of any object reads, applies and deletes": async ({ objects, namespace }) => {
    const named = (spec) => ({ ...kite("one", spec), metadata: { name: "one", namespace } });
    assert.equal((await objects.read(named())).spec.tail, 2);
    const apply = k8s.PatchStrategy.ServerSideApply;
    const conflict = objects.patch(named({ tail: 3 }), undefined, undefined, "applier", false, apply);
    const refusal = await refused(409, "Conflict", conflict);
    assert.deepEqual(refusal.causes, [["FieldManagerConflict", ".spec.tail"]]);
    const applied = await objects.patch(named({ tail: 3 }), undefined, undefined, "applier", true, apply);
    assert.equal(applied.spec.tail, 3);
    const listed = await objects.list(`${GROUP}/v1`, "Kite", namespace);
    assert.equal(listed.items.length, 1);
    await objects.delete(named());
    await refused(404, "NotFound", objects.read(named()));
  },

  "the definition goes, and its kind with it": async (world) => {
    const name = `kites.${GROUP}`;
    const extensions = world.config.makeApiClient(k8s.ApiextensionsV1Api);
    await extensions.deleteCustomResourceDefinition({ name });
    await gone(world, DEFINITIONS, name, (only) => extensions.listCustomResourceDefinition(only));
    const api = world.config.makeApiClient(k8s.CustomObjectsApi);
    const listed = api.listClusterCustomObject({ group: GROUP, version: "v1", plural: "kites" });
    await assert.rejects(listed, (error) => error.code === 404);
  },
};
