import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { poll } from '#host/wait.ts';
import { createHostNetwork } from './host-network.ts';

test('an attachment of an earlier process whose plugin fails is tried again until it is removed', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'podvm-left-'));
  const attachments = join(stateDir, 'attachments');
  await mkdir(attachments);
  const away = join(stateDir, 'away');
  const calls = join(stateDir, 'calls');
  await writeFile(away, '');
  const plugin = join(stateDir, 'agent');
  await writeFile(plugin, `#!/bin/sh\necho "$CNI_COMMAND" >>${calls}\n[ ! -e ${away} ]\n`);
  await chmod(plugin, 0o755);
  const pod = { podName: 'pod', podNamespace: 'default', podUid: 'uid', mode: 'cni', hostPorts: [] };
  const conflist = { cniVersion: '1.0.0', name: 'podvm', plugins: [{ type: 'agent' }] };
  const record = { version: 1, sandboxId: 'sb-left', ...pod, tapOwnerUid: 1000, mac: '02:00:00:00:00:01', conflist };
  await writeFile(join(attachments, 'sb-left.json'), JSON.stringify(record));
  const soon = AbortSignal.timeout(60_000);
  const network = createHostNetwork({ stateDir, cniPluginDirs: [stateDir], collectAgainMs: 1, log: silentLog });
  const isLeft = async () => (await readdir(attachments)).length > 0;
  const mends = (until: () => Promise<boolean>) =>
    poll(
      async () => {
        assert.deepEqual(await network.mend([], soon), new Map());
        return (await until()) || undefined;
      },
      { everyMs: 10, signal: soon },
    );
  assert.deepEqual(await network.collect(new Set(), soon), []);
  const tries = async () => (await readdir(stateDir)).includes('calls') && isLeft();
  assert.ok(await mends(tries), 'it is kept on record');
  await rm(calls);
  assert.ok(await mends(tries), 'it is tried again');
  await rm(away);
  assert.ok(await mends(async () => !(await isLeft())), 'it is removed');
  await rm(stateDir, { recursive: true });
});
