import { sandboxSpec } from '#sandbox/testing/examples.ts';
import { openNode } from './node.ts';

/** Prints its directory once a sandbox runs in it, and waits to be killed. */
const node = await openNode();
await node.sandboxes.run({ ...sandboxSpec, name: 'orphan' }, AbortSignal.timeout(60_000));
process.stdout.write(`${node.directory}\n`);
setInterval(() => {}, 60_000);
