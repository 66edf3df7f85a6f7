import { readFile } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { missingHostTools, parseHostTools } from '#setup/host-tools.ts';

/** Installs the Debian packages in `host-packages.txt` whose program is missing; nothing when all are there. */
async function setUp(): Promise<void> {
  const tools = parseHostTools(await readFile(new URL('host-packages.txt', import.meta.url), 'utf8'));
  const packages = (await missingHostTools(tools)).map((tool) => tool.package);
  if (packages.length === 0) return;
  process.stderr.write(`test set-up: installing Debian packages: ${packages.join(' ')}\n`);
  // HOME and PATH of the caller stay out; no question may stop it.
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' };
  const timeoutMs = 600_000;
  await run('apt-get', ['-qq', 'update'], { env, timeoutMs });
  await run('apt-get', ['-qq', '-y', '--no-install-recommends', 'install', ...packages], { env, timeoutMs });
  const [left] = await missingHostTools(tools);
  if (left === undefined) return;
  throw new PodvmError('failedPrecondition', `Cannot set up tests: ${left.package} did not bring ${left.program}`);
}

await setUp();
