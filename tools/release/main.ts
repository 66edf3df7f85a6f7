import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readConfiguration } from '#daemon/configuration.ts';
import { checkRelease } from './check-release.ts';
import { makeAll } from './make-all.ts';
import { readRelease } from './release.ts';

/**
 * `npm run release`: makes every form of a release in `dist/`, as docs/install.md describes. `-- --check` then makes them
 * again, compares, and installs each in a fresh place.
 */
const repo = join(import.meta.dirname, '../..');
const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } });
const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => interruption.abort());

const { root } = readConfiguration({}, process.env, repo);
const dist = join(repo, 'dist');
const release = await readRelease(repo, root, interruption.signal);
for (const file of await makeAll(release, dist)) process.stdout.write(`dist/${file}\n`);
if (values.check) await checkRelease(release, dist, (line) => process.stdout.write(`${line}\n`));
