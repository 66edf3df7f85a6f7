import { sandboxSpec } from '#sandbox/testing/examples.ts';
import { openHouse } from './house.ts';

/** Says its directory once a sandbox runs in it, and waits to be killed. */
const house = await openHouse();
await house.sandboxes.run({ ...sandboxSpec, name: 'orphan' }, AbortSignal.timeout(60_000));
process.stdout.write(`${house.directory}\n`);
setInterval(() => {}, 60_000);
