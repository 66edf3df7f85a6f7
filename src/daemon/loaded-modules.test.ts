import assert from 'node:assert/strict';
import { it } from 'node:test';
import { run } from '#host/process/run.ts';

/** Prints modules of Node itself that a process has loaded, of which there is no other sign, and then those of others. */
const script = `
import { registerHooks } from 'node:module';
const others = new Set();
registerHooks({
  resolve(name, context, next) {
    const found = next(name, context);
    others.add(found.url);
    return found;
  },
});
await Promise.all(process.argv.slice(1).map((name) => import(name)));
console.log(process.moduleLoadList.filter((name) => /undici/.test(name)).join());
console.log([...others].filter((url) => /opentelemetry/.test(url)).join());
console.log([...others].filter((url) => /valibot/.test(url)).length > 0);`;

const modules = ['#daemon/daemon-command.ts', '#daemon/background/serve-here.ts', '#cli/program.ts'];

it('neither a daemon nor a command loads the WebSocket and fetch of Node, which take 17 MB, nor the libraries of traces', async () => {
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script, ...modules], {
    cwd: import.meta.dirname,
  });
  assert.equal(stdout, '\n\ntrue\n');
});
