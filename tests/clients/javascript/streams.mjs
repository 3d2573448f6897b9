// Logs, exec, attach and port-forward of a running pod.

import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";

import * as k8s from "@kubernetes/client-node";

import { gone, until } from "./world.mjs";

const POD = "streams";

// Serves its own page, and tells standard input back. Its log is three lines.
const SCRIPT = `
echo page > /tmp/index.html; httpd -p 8080 -h /tmp
for n in 1 2 3; do echo line $n; done
while read -r line; do echo "heard $line"; done
`;

// Runs a command to its end: what it said on both streams, and the Status.
async function run({ config, namespace }, command, stdin = null) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const said = Promise.all([text(stdout), text(stderr)]);
  const status = await new Promise((resolve, reject) => {
    new k8s.Exec(config).exec(namespace, POD, "main", command, stdout, stderr, stdin, false, resolve).catch(reject);
  });
  const [out, err] = await said;
  return { out, err, status };
}

// Reads until `wanted` came.
async function heard(stream, wanted) {
  let all = "";
  for await (const part of stream) {
    all += part;
    if (all.includes(wanted)) {
      return all;
    }
  }
  throw new Error(`the stream ended after ${JSON.stringify(all)}`);
}

export const streams = {
  "a pod is scheduled and runs": async (world) => {
    const { core, namespace, image } = world;
    const container = { name: "main", image, command: ["sh", "-c", SCRIPT], stdin: true };
    const body = { metadata: { name: POD }, spec: { terminationGracePeriodSeconds: 1, containers: [container] } };
    await core.createNamespacedPod({ namespace, body });
    const ready = (_, found) => (found.status.conditions ?? [])
      .some((condition) => condition.type === "Ready" && condition.status === "True");
    const running = await until(world, `/api/v1/namespaces/${namespace}/pods`, ready, { fieldSelector: `metadata.name=${POD}` });
    assert.equal(running.status.phase, "Running");
  },

  "logs are read and followed": async ({ config, core, namespace }) => {
    const follow = new PassThrough();
    const request = await new k8s.Log(config).log(namespace, POD, "main", follow, { follow: true });
    assert.equal(await heard(follow, "line 3\n"), "line 1\nline 2\nline 3\n");
    request.abort();
    const last = await core.readNamespacedPodLog({ namespace, name: POD, tailLines: 1, timestamps: true });
    assert.match(last, /^\d{4}-\d\d-\d\dT\S+Z line 3\n$/);
    const other = new k8s.Log(config).log(namespace, POD, "other", new PassThrough(), {});
    await assert.rejects(other, (error) => error.code === 400);
  },

  "commands run, with their output, input and exit code": async (world) => {
    const page = await run(world, ["cat", "/tmp/index.html"]);
    assert.deepEqual([page.out, page.err, page.status.status], ["page\n", "", "Success"]);
    const failed = await run(world, ["sh", "-c", "echo wrong >&2; exit 3"]);
    assert.equal(failed.err, "wrong\n");
    assert.deepEqual([failed.status.status, failed.status.reason], ["Failure", "NonZeroExitCode"]);
    assert.deepEqual(failed.status.details.causes, [{ reason: "ExitCode", message: "3" }]);
    const input = new PassThrough();
    const echoed = run(world, ["sh", "-c", "read line; echo $line"], input);
    input.write("to and fro\n");
    assert.equal((await echoed).out, "to and fro\n");
  },

  "attach speaks with the container itself": async ({ config, namespace }) => {
    const [stdout, stdin] = [new PassThrough(), new PassThrough()];
    const socket = await new k8s.Attach(config).attach(namespace, POD, "main", stdout, null, stdin, false);
    stdin.write("you\n");
    assert.equal(await heard(stdout, "\n"), "heard you\n");
    socket.close();
  },

  "a port is forwarded, and one that nobody listens on says so": async ({ config, namespace }) => {
    const forward = async (port, request) => {
      const [output, error, input] = [new PassThrough(), new PassThrough(), new PassThrough()];
      const socket = await new k8s.PortForward(config).portForward(namespace, POD, [port], output, error, input);
      socket.onclose = () => { output.end(); error.end(); };
      input.write(request);
      return { output, error, socket };
    };
    const open = await forward(8080, "GET /index.html HTTP/1.0\r\n\r\n");
    assert.match(await heard(open.output, "page\n"), /^HTTP\/1\.\d 200 /);
    open.socket.close();
    const closed = await forward(9, "x");
    assert.match(await heard(closed.error, "refused"), /connection refused/i);
    closed.socket.close();
  },

  "an eviction ends the pod": async (world) => {
    const { core, namespace } = world;
    await core.createNamespacedPodEviction({ namespace, name: POD, body: { metadata: { name: POD, namespace } } });
    const list = (only) => core.listNamespacedPod({ namespace, ...only });
    await gone(world, `/api/v1/namespaces/${namespace}/pods`, POD, list);
  },
};
