import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import * as v from 'valibot';
import { volumeSummarySchema } from '#api/volumes.ts';
import { eventsOf, openAdmin, refusalOf, type Served } from '../testing/served-admin.ts';

const files = (storage: string) => [
  {
    name: 'web.yaml',
    text: `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: data }
spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: ${storage} } } }
---
apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  volumes: [{ name: v, persistentVolumeClaim: { claimName: data } }]
  containers: [{ name: main, image: i, volumeMounts: [{ name: v, mountPath: /v }] }]
`,
  },
];

async function run(served: Served, storage: string): Promise<readonly Record<string, unknown>[]> {
  const socket = served.talk('/v1/run');
  await once(socket, 'open');
  socket.send(JSON.stringify({ files: files(storage), network: 'none', detach: true }));
  return await Array.fromAsync(eventsOf(socket));
}
const list = async (served: Served) =>
  v.parse(v.array(volumeSummarySchema), JSON.parse((await served.call('GET', '/v1/volumes')).body));

describe('the volume of a claim', () => {
  test('is made by the run, is in use while its pod runs, and outlives it until it is removed', async () => {
    await using served = await openAdmin();
    assert.equal((await run(served, '10Mi')).at(-1)?.['event'], 'finished');
    const [volume] = await list(served);
    assert.deepEqual([volume?.name, volume?.sizeBytes, volume?.pods], ['data', 10 * 2 ** 20, ['web']]);
    const refusal = await refusalOf(served, 'DELETE', '/v1/volumes/default/data');
    assert.deepEqual(
      [refusal.kind, refusal.message],
      ['busy', 'Cannot remove the volume default/data: pod web has it'],
    );
    assert.equal((await served.call('DELETE', '/v1/pods/_/web?force=true')).status, 200);
    assert.deepEqual((await list(served))[0]?.pods, []);
    {
      await using image = await open(served.parts.volumes.pathOf('default', 'data'), 'r+');
      await image.write('kept', 2 ** 20);
    }
    assert.equal((await run(served, '10Mi')).at(-1)?.['event'], 'finished');
    {
      await using image = await open(served.parts.volumes.pathOf('default', 'data'), 'r');
      assert.equal((await image.read(Buffer.alloc(4), 0, 4, 2 ** 20)).buffer.toString(), 'kept');
    }
    assert.equal((await served.call('DELETE', '/v1/pods/_/web?force=true')).status, 200);
    assert.equal((await served.call('DELETE', '/v1/volumes/default/data')).status, 200);
    assert.equal((await served.call('GET', '/v1/volumes/default/data')).status, 404);
  });

  test('is not made with a size that cannot be, and then no pod starts', async () => {
    await using served = await openAdmin();
    const [failed] = await run(served, '1Mi');
    assert.match(JSON.stringify(failed), /failed.*Cannot make the volume default\/data: its size must be/);
    assert.deepEqual([await list(served), served.parts.sandboxes.list()], [[], []]);
    assert.equal((await served.call('DELETE', '/v1/volumes/default/..%2fdata')).status, 404);
  });
});
