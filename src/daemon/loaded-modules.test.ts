import assert from 'node:assert/strict';
import { it } from 'node:test';
import { run } from '#host/run.ts';

/** Modules of Node itself that a process has loaded; there is no other sign of them. */
const script = `
await Promise.all(process.argv.slice(1).map((name) => import(name)));
console.log(process.moduleLoadList.filter((name) => /undici/.test(name)).join());`;

it('neither a daemon nor a command loads the WebSocket and fetch of Node, which take 17 MB', async () => {
  const modules = ['#daemon/daemon-command.ts', '#daemon/serve-here.ts', '#cli/program.ts'];
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script, ...modules], {
    cwd: import.meta.dirname,
  });
  assert.equal(stdout, '\n');
});
