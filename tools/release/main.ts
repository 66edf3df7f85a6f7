import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readConfiguration } from '#daemon/configuration/configuration.ts';
import { errorText } from '#cli/terminal/terminal.ts';
import { checkParts, checkRelease } from './check-release.ts';
import { makeAll } from './make-all.ts';
import { readRelease } from './release.ts';

/**
 * `npm run release`: makes every form of a release in `dist/`, as docs/install.md describes. Its machines have the kernel that was
 * chosen in the state directory (`podvm setup --kernel small`). `-- --check` then makes them
 * again, compares, and installs each in a fresh place. `-- --only bytes|npm|deb|image|upgrade` does one part of that
 * check, with the present content of `dist/`. `--older COMMIT` names the commit from which an upgrade starts.
 */
const repo = join(import.meta.dirname, '../..');
/** The release before this one; before there is one, a commit that such a version could have been made from. */
const olderRelease = '9be1dca67684';
const { values } = parseArgs({
  options: {
    check: { type: 'boolean', default: false },
    only: { type: 'string' },
    older: { type: 'string', default: olderRelease },
  },
});
const only = checkParts.find((part) => part === values.only);
if (only === undefined && values.only !== undefined) throw new Error(`--only takes one of ${checkParts.join(', ')}`);
const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => interruption.abort());

try {
  const { root } = readConfiguration({}, process.env, repo);
  const dist = join(repo, 'dist');
  const release = await readRelease(repo, root, interruption.signal);
  const say = (line: string) => process.stdout.write(`${line}\n`);
  if (only === undefined) for (const file of await makeAll(release, dist)) say(`dist/${file}`);
  if (only === undefined) say(`guest kernel by default: ${release.kernelVersion}`);
  const wanted = only === undefined ? checkParts : [only];
  if (values.check || only !== undefined)
    await checkRelease({ release, dist, older: values.older, report: say }, wanted);
} catch (error) {
  process.stderr.write(errorText(error));
  process.exitCode = 1;
}
