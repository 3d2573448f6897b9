// What users of @kubernetes/client-node rely on, asked of the cluster that KUBECONFIG names.
//
// Prints `ok WHAT` for each step, and ends with status 1 at the first that went wrong.

import { custom } from "./custom.mjs";
import { objects } from "./objects.mjs";
import { streams } from "./streams.mjs";
import { watches } from "./watches.mjs";
import { LIMIT, openWorld, within } from "./world.mjs";

const world = await openWorld();
for (const steps of [objects, watches, custom, streams]) {
  for (const [name, step] of Object.entries(steps)) {
    try {
      await within(LIMIT, name, step(world));
    } catch (error) {
      console.error(error);
      console.error(`failed: ${name}`);
      process.exit(1);
    }
    console.log(`ok ${name}`);
  }
}
// What waits for nothing any more (timers of the client) must not hold the process.
process.exit(0);
