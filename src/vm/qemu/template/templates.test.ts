import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { inside } from '../jail/jail.ts';
import type { Accelerator } from '../../driver.ts';
import type { QemuDriverOptions } from '../driver-options.ts';
import type { KvmHost } from '../processor/kvm-host.ts';
import { maxTenantTemplates, Templates } from './templates.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: templates belong to root';
const shape = { memoryMiB: 512, vcpus: 1, hasNic: true };
const of = (tenant: string) => ({ ...shape, tenant });

const kvmHost: KvmHost = {
  processor: new Map([['microcode', '0x1']]),
  flags: new Set(),
  tscKHz: 2_000_000,
  kernel: { release: '6.12.1', version: '#1' },
  modules: new Map(),
  clockSource: 'tsc',
  absent: undefined,
};

/** Templates without machines: keys and retention need only files. */
async function emptyHouse(accelerator: Accelerator = 'tcg') {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-templates-'));
  const place = join(directory, 'templates');
  const assets = {
    sysroot: join(directory, 'sysroot'),
    kernel: join(directory, 'kernel'),
    initramfs: join(directory, 'initramfs'),
  };
  const options: QemuDriverOptions = { assets, accelerator };
  const qemu = join(assets.sysroot, inside.qemu);
  await mkdir(dirname(qemu), { recursive: true });
  for (const path of [qemu, assets.kernel, assets.initramfs]) await writeFile(path, '');
  const reopen = (on: KvmHost) => new Templates(place, options, () => Promise.resolve(on));
  const templates = reopen(kvmHost);
  let published = 0;
  const keyOf = async (wanted: Parameters<Templates['find']>[0]) => basename((await templates.find(wanted)) ?? '');
  return {
    templates,
    reopen,
    options,
    keyOf,
    keys: () => readdir(place),
    async publish(wanted: Parameters<Templates['find']>[0]): Promise<string> {
      published += 1;
      const files = { memory: join(directory, `memory-${published}`), state: join(directory, `state-${published}`) };
      for (const path of Object.values(files)) await writeFile(path, 'x');
      await templates.publish(wanted, files);
      return await keyOf(wanted);
    },
    /** Sets its time of creation to that second. */
    makeOld: (key: string, second: number) => utimes(join(place, key), second, second),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

describe('Templates', { skip }, () => {
  it('find() gives a tenant only its own template, and the node only the shared one', async () => {
    await using place = await emptyHouse();
    const { templates } = place;
    const node = await place.publish(shape);
    assert.equal(await templates.find(of('shop')), undefined);
    const shop = await place.publish(of('shop'));
    assert.equal(await templates.find(of('bank')), undefined);
    const bank = await place.publish(of('bank'));
    assert.equal(new Set([node, shop, bank]).size, 3);
    assert.deepEqual(new Set(await place.keys()), new Set([node, shop, bank]));
    assert.ok(shop.startsWith(`${node}-`) && bank.startsWith(`${node}-`), 'of one generation and shape');
    assert.deepEqual([await place.keyOf(shape), await place.keyOf(of('shop'))], [node, shop]);
  });

  it('find() never uses a tenant’s name as a path', async () => {
    await using place = await emptyHouse();
    for (const name of ['../../etc', '/', '', '.', '-', 'x'.repeat(10_000)]) {
      assert.match(await place.publish(of(name)), /^[0-9a-f]{16}-[0-9a-f]{16}-[0-9a-f]{32}$/);
    }
  });

  it('publish() removes only the oldest tenant templates when there are too many', async () => {
    await using place = await emptyHouse();
    const node = await place.publish(shape);
    await place.makeOld(node, 1);
    const ofTenants: string[] = [];
    for (let count = 0; count < maxTenantTemplates; count += 1) {
      const key = await place.publish(of(`tenant-${count}`));
      await place.makeOld(key, 100 - count); // the later ones are older
      ofTenants.push(key);
    }
    assert.deepEqual(new Set(await place.keys()), new Set([node, ...ofTenants]), 'the maximum');
    await place.publish({ ...shape, hasNic: false });
    assert.equal((await place.keys()).length, maxTenantTemplates + 2, 'the shared one does not count');

    const next = await place.publish(of('next'));
    const keys = new Set(await place.keys());
    assert.equal(keys.size, maxTenantTemplates + 2);
    assert.ok(keys.has(next) && keys.has(node));
    assert.ok(!keys.has(ofTenants.at(-1) ?? ''), 'the oldest is removed');
  });

  it('publish() keeps the new template after the clock has gone back', async () => {
    await using place = await emptyHouse();
    for (let count = 0; count < maxTenantTemplates; count += 1) {
      await place.makeOld(await place.publish(of(`tenant-${count}`)), 2 ** 33);
    }
    assert.notEqual(await place.publish(of('next')), '');
    assert.equal((await place.keys()).length, maxTenantTemplates);
  });

  it('publish() removes templates of another generation, including tenants’', async () => {
    await using place = await emptyHouse();
    await place.publish(shape);
    await place.publish(of('shop'));
    await writeFile(place.options.assets.kernel, 'a newer one');
    const now = await place.publish(shape);
    assert.deepEqual(await place.keys(), [now]);
  });

  it('find() uses no template that KVM froze under another kernel or microcode of the host', async () => {
    await using place = await emptyHouse('kvm');
    const made = await place.publish(shape);
    assert.notEqual(made, '');
    const onHost = (host: KvmHost) => place.reopen(host).find(shape);
    assert.equal(basename((await onHost(kvmHost)) ?? ''), made);
    assert.equal(await onHost({ ...kvmHost, kernel: { release: '6.12.2', version: '#1' } }), undefined);
    assert.equal(await onHost({ ...kvmHost, processor: new Map([['microcode', '0x2']]) }), undefined);
    assert.equal(await onHost({ ...kvmHost, modules: new Map([['kvm_intel', ['nested=N']]]) }), undefined);
    assert.deepEqual(await place.keys(), [made], 'a search removes no valid template');
  });

  it('concurrent calls of publish() lose no template', async () => {
    await using place = await emptyHouse();
    const names = Array.from({ length: maxTenantTemplates }, (_, at) => `tenant-${at}`);
    const keys = await Promise.all(names.map((name) => place.publish(of(name))));
    assert.deepEqual(new Set(await place.keys()), new Set(keys));
  });

  it('publish() works after a failed call', async () => {
    await using place = await emptyHouse();
    const missing = { memory: '/no/such', state: '/no/such' };
    await assert.rejects(place.templates.publish(shape, missing), { code: 'ENOENT' });
    assert.notEqual(await place.publish(shape), '');
  });
});
