import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '../process/run.ts';

test('makeCgroup() fails at once where no cgroups are mounted', async () => {
  const tree = join(import.meta.dirname, 'cgroup-tree.ts');
  const make = `
    const { makeCgroup } = await import(${JSON.stringify(tree)});
    await makeCgroup('/sys/fs/cgroup/memory/podvm/test').catch(({ code }) => console.log(code));`;
  const script = 'mount -t sysfs sysfs /sys && exec "$0" --input-type=module -e "$1"';
  // The sysfs of a new network namespace has no cgroups on it.
  const { stdout } = await run('unshare', ['--mount', '--net', 'sh', '-ec', script, process.execPath, make], {
    timeoutMs: 20_000,
  });
  assert.equal(stdout, 'ENOENT\n');
});
