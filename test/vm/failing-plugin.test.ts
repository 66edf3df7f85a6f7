import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { defaultPluginDirs } from '#network/host-network.ts';
import { sandboxSpec } from '#sandbox/testing/examples.ts';
import { openNode, whyNoVm } from './node.ts';

const soon = () => AbortSignal.timeout(120_000);
const hostPorts = [{ protocol: 'TCP', hostPort: 39_461, containerPort: 80, hostIP: '' }] as const;

/** A network of `bridge` and a plugin that fails while the file `away` is there, as one does whose agent is being replaced. */
async function openFailing() {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp('/var/tmp/podvm-failing-plugin-');
  undo.defer(() => rm(directory, { recursive: true }));
  const [configDirectory, pluginDirectory] = [join(directory, 'net.d'), join(directory, 'bin')];
  for (const path of [configDirectory, pluginDirectory]) await mkdir(path);
  const bridge = 'pvmtest8';
  undo.defer(async () => void (await run('ip', ['link', 'delete', bridge], { okCodes: 'any' })));
  const ipam = { type: 'host-local', dataDir: join(directory, 'ipam'), ranges: [[{ subnet: '10.219.78.0/24' }]] };
  const plugins = [{ type: 'bridge', bridge, ipam }, { type: 'agent' }];
  await writeFile(
    join(configDirectory, '10.conflist'),
    JSON.stringify({ cniVersion: '1.0.0', name: 'podvm', plugins }),
  );
  const away = join(directory, 'away');
  // Its input has the result of the plugin before it, which it passes on.
  const script = `#!/bin/sh
input=$(cat)
if [ -e ${away} ]; then echo '{"cniVersion": "1.0.0", "code": 100, "msg": "the agent does not answer"}'; exit 1; fi
[ "$CNI_COMMAND" != ADD ] || printf '%s' "$input" | sed 's/.*"prevResult"://; s/}$//'
`;
  await writeFile(join(pluginDirectory, 'agent'), script);
  await chmod(join(pluginDirectory, 'agent'), 0o755);
  const node = undo.use(
    await openNode({
      limits: { undoAgainMs: 1000 },
      cniConfigDirectory: configDirectory,
      cniPluginDirs: [pluginDirectory, ...defaultPluginDirs],
    }),
  );
  const owned = undo.move();
  return {
    node,
    goAway: () => writeFile(away, ''),
    comeBack: () => rm(away),
    attachments: () => readdir(join(node.directory, 'network/attachments')),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

describe('a network whose plugin fails for a while', { skip: await whyNoVm() }, () => {
  test('is left by no start that could neither make nor undo it, and leaves its host port to the next try', async () => {
    await using place = await openFailing();
    const { sandboxes } = place.node;
    const spec = { ...sandboxSpec, name: 'tried', hostPorts };
    await place.goAway();
    await assert.rejects(sandboxes.run(spec, soon()), /the agent does not answer/);
    assert.equal((await place.attachments()).length, 1);
    await assert.rejects(sandboxes.run(spec, soon()), { kind: 'alreadyExists' });
    await place.comeBack();
    const isUndone = async () => (await place.attachments()).length === 0 || undefined;
    assert.ok(await poll(isUndone, { everyMs: 200, signal: AbortSignal.timeout(60_000) }), 'something is left');
    assert.deepEqual(await place.node.leftovers(), []);
    const sandbox = await sandboxes.run(spec, soon());
    assert.equal(sandbox.state, 'ready');
    await sandbox.remove();
    assert.deepEqual(await place.node.leftovers(), []);
  });

  test('keeps no sandbox that could not be removed at first, nor its name and host port', async () => {
    await using place = await openFailing();
    const { sandboxes } = place.node;
    const spec = { ...sandboxSpec, name: 'removed', hostPorts };
    const sandbox = await sandboxes.run(spec, soon());
    await place.goAway();
    await assert.rejects(sandbox.remove(), /the agent does not answer/);
    assert.equal((await place.attachments()).length, 1);
    await place.comeBack();
    const isRemoved = async () => sandboxes.list().length === 0 || undefined;
    assert.ok(await poll(isRemoved, { everyMs: 200, signal: AbortSignal.timeout(60_000) }), 'it is not tried again');
    assert.deepEqual(await place.node.leftovers(), []);
    const next = await sandboxes.run(spec, soon());
    await next.remove();
  });
});
