import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type ErrorKind, messageOf, PodvmError } from '#base/errors.ts';
import { openTracing } from '#daemon/node/tracing.ts';
import { silentLog } from '#host/log/log.ts';
import { traced } from '#host/log/tracing.ts';
import { run } from '#host/process/run.ts';
import { imageUser } from '#image/import/image-user.ts';
import { openImageStore } from '#image/store/image-store.ts';
import type { ImageStore, PullOptions } from '#image/images.ts';
import { pidsThatMount, readErofs, sysroot, traces } from '../images/image-tree.ts';
import { startSilentServer, startTornRegistry } from '../images/bad-registries.ts';
import { makeIndex, type WrittenImage, writeLayout } from '../images/layout-writer.ts';
import { password, type Registry, startRegistry, user } from '../images/registry.ts';
import { openCollector } from '../trace-collector.ts';
import { whyNoVm } from './node.ts';

const hello = {
  layers: [[{ name: 'low', content: 'low' }], [{ name: 'hello', content: 'hello' }, { name: '.wh.low' }]],
};
const minute = () => AbortSignal.timeout(60_000);

/** A store in a directory of its own. */
interface Node extends AsyncDisposable {
  readonly directory: string;
  readonly containers: string;
  readonly store: ImageStore;
  /** Fails unless nothing is left of a pull: no work, no file, no record. */
  assertEmpty(): Promise<void>;
}

async function openStore({
  tmpfsBytes,
  answerTimeoutMs = 60_000,
  level = 1,
  authFile,
}: { tmpfsBytes?: number; answerTimeoutMs?: number; level?: number; authFile?: string } = {}): Promise<Node> {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp('/var/tmp/podvm-store-');
  undo.defer(() => rm(directory, { recursive: true }));
  await run('chmod', ['0711', directory]);
  const images = join(directory, 'images');
  const containers = join(directory, 'containers');
  await mkdir(images);
  await mkdir(join(containers, 'certs.d'), { recursive: true });
  await writeFile(join(containers, 'policy.json'), '{"default":[{"type":"insecureAcceptAnything"}]}');
  await writeFile(join(containers, 'registries.conf'), '');
  if (tmpfsBytes !== undefined) {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${tmpfsBytes},mode=0755`, 'none', images]);
    undo.defer(async () => void (await run('umount', [images])));
  }
  const store = await openImageStore({
    directory: images,
    sysroot: await sysroot(),
    log: silentLog,
    containersDirectory: containers,
    answerTimeoutMs,
    ...(authFile === undefined ? {} : { authFile }),
    processor: { architecture: 'amd64', level },
  });
  const owned = undo.move();
  return {
    directory,
    containers,
    store,
    assertEmpty: async () => {
      assert.deepEqual(store.list(), []);
      assert.deepEqual(await readdir(join(images, 'work')), []);
      assert.deepEqual(await readdir(join(images, 'rootfs')), []);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The pull fails with one readable sentence and a fix, and leaves nothing. */
async function assertRefused(
  node: Node,
  reference: string,
  kind: ErrorKind,
  message: RegExp,
  options: PullOptions = {},
): Promise<void> {
  await assert.rejects(node.store.pull(reference, options, minute()), (error) => {
    assert.ok(error instanceof PodvmError, String(error));
    assert.match(error.message, message);
    assert.equal(error.kind, kind, messageOf(error));
    assert.ok(messageOf(error).length < 400 && !/level=|\\n/.test(messageOf(error)), messageOf(error));
    assert.ok(error.fix !== undefined, `no fix: ${messageOf(error)}`);
    return true;
  });
  await node.assertEmpty();
}

const rootfsOf = async (store: ImageStore, reference: string) => {
  await using held = await store.hold(reference, 'Never', minute());
  return await readErofs(held.rootfsPath);
};

await suite('pull() from a real registry', { skip: await whyNoVm() }, () => {
  let work: string;
  let plain: Registry;
  let image: WrittenImage;
  let earlier: readonly string[];

  before(async () => {
    earlier = await traces();
    work = await mkdtemp('/var/tmp/podvm-layouts-');
    const [written] = await writeLayout(join(work, 'hello'), [hello]);
    assert.ok(written);
    image = written;
    plain = await startRegistry();
    await plain.push(image.layout, 'team/hello:1');
  });
  after(async () => {
    await plain[Symbol.asyncDispose]();
    await rm(work, { recursive: true });
    assert.deepEqual(await traces(), earlier);
  });

  test('reports a missing tag, repository or registry in one sentence', async () => {
    await using node = await openStore();
    const name = `${plain.name}/team/hello`;
    await assertRefused(
      node,
      `${name}:2`,
      'notFound',
      /^Cannot pull localhost:\d+\/team\/hello:2: there is no such image$/,
    );
    await assertRefused(node, `${plain.name}/nobody:1`, 'notFound', /there is no such image/);
    await assertRefused(node, 'localhost:1/a:1', 'unavailable', /the registry does not answer/);
    await assertRefused(node, 'no-such-host.invalid/a:1', 'unavailable', /the registry does not answer/);
    await assertRefused(node, `${name}@sha256:${'0'.repeat(64)}`, 'notFound', /there is no such image/);
    const long = `${plain.name}/${'long/'.repeat(45)}name@sha256:${'0'.repeat(64)}`;
    await assert.rejects(node.store.pull(long, {}, minute()), { kind: 'notFound' });
    await assertRefused(node, `${name}:1`, 'notFound', /auth file \/no\/such cannot be read/, {
      authFile: '/no/such',
    });
  });

  test('a pull is a span of the call that asked for it, with its steps, and tells why it failed', async () => {
    await using node = await openStore();
    await using collector = await openCollector();
    const name = `${plain.name}/team/hello`;
    {
      await using _tracing = await openTracing(collector.url, '1.2.3', silentLog);
      await traced({ name: 'PullImage' }, () => node.store.pull(`${name}:1`, {}, minute()));
      await assert.rejects(traced({ name: 'PullImage' }, () => node.store.pull(`${name}:2`, {}, minute())));
    }
    const [call, failed] = collector.spans.filter((span) => span.name === 'PullImage');
    const pulls = collector.spans.filter((span) => span.name === 'pull image');
    const pullOf = (outer: typeof call) => pulls.find(({ parentSpanId }) => parentSpanId === outer?.spanId);
    const [pull, failure] = [pullOf(call), pullOf(failed)];
    assert.deepEqual(pull?.attributes, [{ key: 'image', value: { stringValue: `${name}:1` } }]);
    const steps = collector.spans.filter(({ parentSpanId }) => parentSpanId === pull?.spanId);
    assert.deepEqual(
      steps.map((step) => step.name),
      ['manifest read', 'layers copied', 'layers flattened'],
    );
    assert.match(failure?.status.message ?? '', /there is no such image/);
  });

  test('pulls by tag and by digest, over plain HTTP on loopback', async () => {
    await using node = await openStore();
    const pulled = await node.store.pull(`${plain.name}/team/hello:1`, {}, minute());
    const digest = `${plain.name}/team/hello@${image.manifestDigest}`;
    assert.equal(pulled.id, image.id);
    assert.deepEqual(pulled.digests, [digest]);
    const tree = { '.': 'dir 0755', hello: 'file 0644 "hello"' };
    assert.deepEqual(await rootfsOf(node.store, `${plain.name}/team/hello:1`), tree);
    await node.store.remove(image.id);
    await node.assertEmpty();
    assert.deepEqual((await node.store.pull(digest, {}, minute())).references, []);
    assert.deepEqual(await rootfsOf(node.store, digest), tree);
  });

  test('fetches a damaged image again unchanged, or reports why it cannot', async () => {
    await using registry = await startRegistry();
    await using node = await openStore();
    await registry.push(image.layout, 'team/hello:1');
    const reference = `${registry.name}/team/hello:1`;
    const tree = { '.': 'dir 0755', hello: 'file 0644 "hello"' };
    await using running = await node.store.hold(reference, 'Always', minute());
    const before = await readFile(running.rootfsPath);
    const [other] = await writeLayout(join(work, 'newer'), [{ layers: [[{ name: 'newer' }]] }]);
    await registry.push(other?.layout ?? '', 'team/hello:1'); // the tag has moved, which IfNotPresent does not follow
    for (const at of [1024, before.length - 1]) {
      await writeFile(running.rootfsPath, Buffer.from(before).fill(0xff, at, at + 1));
      await assert.rejects(node.store.hold(reference, 'Never', minute()), {
        kind: 'corrupt',
        fix: /podvm image pull/,
      });
      await using mended = await node.store.hold(reference, 'IfNotPresent', minute());
      assert.equal(mended.id, image.id);
      assert.deepEqual(await readErofs(mended.rootfsPath), tree);
      assert.equal(node.store.get(reference)?.damaged, undefined);
    }
    await writeFile(running.rootfsPath, before.subarray(0, 2000));
    await registry[Symbol.asyncDispose]();
    await assert.rejects(node.store.hold(reference, 'IfNotPresent', minute()), (error) => {
      assert.ok(error instanceof PodvmError && error.kind === 'unavailable' && error.fix !== undefined, String(error));
      assert.match(
        error.message,
        /Cannot use image .*\/hello:1: it is damaged: .*2000 bytes.*the registry does not answer/,
      );
      return true;
    });
    assert.equal(node.store.get(reference)?.id, image.id, 'it stays known');
  });

  test('chooses the image for this machine from an index, or lists what it has', async () => {
    await using node = await openStore();
    for (const [name, architectures] of [
      ['both', ['arm64', 'amd64']],
      ['arm', ['arm64', 's390x']],
    ] as const) {
      const written = await writeLayout(
        join(work, name),
        architectures.map((architecture) => ({ ...hello, architecture })),
      );
      const [first, second] = written;
      assert.ok(first && second);
      const args = ['--quiet', '--all', '--dest-tls-verify=false'];
      await makeIndex(join(work, name));
      await run('skopeo', ['copy', ...args, `oci:${join(work, name)}`, `docker://${plain.name}/${name}:1`]);
    }
    await assertRefused(
      node,
      `${plain.name}/arm:1`,
      'unsupported',
      /it has no linux\/amd64 image, only linux\/arm64, linux\/s390x/,
    );
    assert.equal((await node.store.pull(`${plain.name}/both:1`, {}, minute())).digests.length, 2);
  });

  test('finds the image in nested indexes, by its variant, and by its config, and no attestation', async () => {
    const amd64 = { os: 'linux', architecture: 'amd64' };
    const unknown = { os: 'unknown', architecture: 'unknown' };
    const push = async (word: string, config: object = {}) => {
      const [written] = await writeLayout(join(work, word), [{ layers: [[{ name: word }]], config }]);
      assert.ok(written);
      await plain.push(written.layout, `odd:${word}`);
      return written;
    };
    const [baseline, v3, v4] = [await push('baseline'), await push('v3'), await push('v4')];
    const attestation = { ...(await push('attestation', unknown)).entry, platform: unknown };
    const arm = { ...(await push('arm', { architecture: 'arm64' })).entry };
    const variants = [
      { ...v4.entry, platform: { ...amd64, variant: 'v4' } },
      { ...baseline.entry, platform: amd64 },
      { ...v3.entry, platform: { ...amd64, variant: 'v3' } },
    ];
    const inner = await plain.pushIndex('odd', 'inner', [attestation, ...variants]);
    await plain.pushIndex('odd', 'nested', [attestation, arm, { ...inner, platform: amd64 }]);
    await plain.pushIndex('odd', 'nowhere', [attestation, arm, baseline.entry]);
    await plain.pushIndex('odd', 'new', [attestation, variants[0] ?? {}]);
    const name = `${plain.name}/odd`;
    for (const [level, tag, image] of [
      [2, 'nested', baseline],
      [3, 'nested', v3],
      [4, 'nested', v4],
      [1, 'nowhere', baseline],
    ] as const) {
      await using node = await openStore({ level });
      const pulled = await node.store.pull(`${name}:${tag}`, {}, minute());
      assert.equal(pulled.id, image.id, `${tag} on v${level}`);
      assert.ok(pulled.digests.includes(`${name}@${image.manifestDigest}`));
      assert.equal(pulled.digests.includes(`${name}@${inner.digest}`), tag === 'nested');
    }
    await using node = await openStore({ level: 3 });
    await assertRefused(node, `${name}:new`, 'unsupported', /it has no linux\/amd64\/v3 image, only linux\/amd64\/v4$/);
    await assertRefused(node, `${name}:arm`, 'unsupported', /it is for linux\/arm64, this machine is linux\/amd64\/v3/);

    let deep = { ...inner, platform: amd64 };
    for (let at = 0; at < 20; at += 1) deep = { ...(await plain.pushIndex('odd', 'deep', [deep])), platform: amd64 };
    await assertRefused(node, `${name}:deep`, 'exhausted', /its indexes are nested more than 8 deep/);
  });

  test('replaces an image for a better processor than this one by one that fits', async () => {
    const amd64 = { os: 'linux', architecture: 'amd64' };
    const images = await Promise.all(
      ['plain', 'better'].map(async (word) => {
        const [written] = await writeLayout(join(work, word), [{ layers: [[{ name: word }]] }]);
        assert.ok(written);
        await plain.push(written.layout, `moved:${word}`);
        return written;
      }),
    );
    const platforms = [amd64, { ...amd64, variant: 'v4' }];
    await plain.pushIndex(
      'moved',
      '1',
      images.map(({ entry }, at) => ({ ...entry, platform: platforms[at] })),
    );
    const reference = `${plain.name}/moved:1`;
    await using node = await openStore({ level: 4 });
    assert.equal((await node.store.pull(reference, {}, minute())).id, images[1]?.id);
    const slower = await openImageStore({
      directory: join(node.directory, 'images'),
      sysroot: await sysroot(),
      log: silentLog,
      containersDirectory: node.containers,
      processor: { architecture: 'amd64', level: 3 },
    });
    const asked = slower.hold(reference, 'Never', minute());
    await assert.rejects(asked, { kind: 'notFound', message: /it is not for linux\/amd64\/v3/ });
    await using held = await slower.hold(reference, 'IfNotPresent', minute());
    assert.equal(held.id, images[0]?.id);
    assert.equal(slower.get(reference)?.id, images[0]?.id);
  });

  test('moves a tag when it is pulled, and never because of a digest', async () => {
    await using node = await openStore();
    const [other] = await writeLayout(join(work, 'next'), [{ layers: [[{ name: 'next' }]] }]);
    assert.ok(other);
    const name = `${plain.name}/team/moving`;
    await plain.push(image.layout, 'team/moving:stable');
    const references = (id: string) => node.store.get(id)?.references;
    await node.store.pull(`${name}:stable`, {}, minute());
    await plain.push(other.layout, 'team/moving:stable');
    await node.store.pull(`${name}:stable`, {}, minute());
    assert.deepEqual([references(image.id), references(other.id)], [[], [`${name}:stable`]]);

    const old = `${name}:stable@${image.manifestDigest}`;
    for (const wanted of [old, `${name}:other@${image.manifestDigest}`, `${name}@${image.manifestDigest}`]) {
      assert.equal((await node.store.pull(wanted, {}, minute())).id, image.id);
      assert.equal(node.store.get(wanted)?.id, image.id);
      await using held = await node.store.hold(wanted, 'Always', minute());
      assert.equal(held.id, image.id);
      assert.deepEqual([references(image.id), references(other.id)], [[], [`${name}:stable`]]);
    }
    assert.equal(node.store.get(`${name}:other`), undefined);
    assert.deepEqual((await node.store.untag(old)).removed, image.id);
    assert.equal(node.store.get(`${name}:stable`)?.id, other.id);
  });

  test("gives Docker's manifests the id that Docker gives them, and copies them once", async () => {
    await using node = await openStore();
    await plain.push(image.layout, 'docker:1', 'v2s2');
    const reference = `${plain.name}/docker:1`;
    const said: string[] = [];
    const onProgress = (message: string) => void said.push(message);
    const written: number[] = [];
    for (const _ of ['once', 'again']) {
      assert.equal((await node.store.pull(reference, { onProgress }, minute())).id, image.id);
      written.push((await stat(join(node.directory, 'images/index.json'))).ino);
    }
    assert.equal(written[0], written[1], 'the second pull changes nothing on the disk');
    assert.equal(said.filter((message) => /\(\d+ layers/.test(message)).length, 1);
    assert.deepEqual(await rootfsOf(node.store, reference), { '.': 'dir 0755', hello: 'file 0644 "hello"' });
  });

  test('shares the work of concurrent pulls of one image, each of which can be cancelled', async () => {
    await using node = await openStore();
    const said: string[] = [];
    const onProgress = (message: string) => void said.push(message);
    const reference = `${plain.name}/team/hello:1`;
    const giveUp = new AbortController();
    const abandoned = node.store.pull(reference, { onProgress }, giveUp.signal);
    const pulls = Array.from({ length: 8 }, () => node.store.pull(reference, { onProgress }, minute()));
    giveUp.abort();
    await assert.rejects(abandoned, (error) => error instanceof PodvmError && error.kind === 'cancelled');
    assert.deepEqual(new Set((await Promise.all(pulls)).map(({ id }) => id)), new Set([image.id]));
    assert.equal(said.filter((message) => message.startsWith('flattening')).length, 8, 'all who wait are told once');
  });

  test('leaves nothing when the last caller cancels', async () => {
    await using node = await openStore();
    const abort = new AbortController();
    const onProgress = () => abort.abort();
    await assert.rejects(node.store.pull(`${plain.name}/team/hello:1`, { onProgress }, abort.signal), {
      kind: 'cancelled',
    });
    await untilEmpty(join(node.directory, 'images/work'));
    await node.assertEmpty();
  });

  test('requires the right user and password if the registry does', async () => {
    await using registry = await startRegistry({ auth: true });
    await using node = await openStore();
    await registry.push(image.layout, 'closed:1');
    const reference = `${registry.name}/closed:1`;
    const authFile = async (word: string) => {
      const path = join(node.directory, `${word}.json`);
      const auth = Buffer.from(`${user}:${word}`).toString('base64');
      await writeFile(path, JSON.stringify({ auths: { [registry.name]: { auth } } }), { mode: 0o600 });
      return path;
    };
    await assertRefused(node, reference, 'denied', /the registry does not accept the credentials, or requires some/);
    await assertRefused(node, reference, 'denied', /does not accept/, { authFile: await authFile('wrong') });
    assert.equal((await node.store.pull(reference, { authFile: await authFile(password) }, minute())).id, image.id);
  });

  test("uses the credentials of the node's configuration, and never root's own", async () => {
    await using registry = await startRegistry({ auth: true });
    await registry.push(image.layout, 'closed:1');
    const reference = `${registry.name}/closed:1`;
    const auth = Buffer.from(`${user}:${password}`).toString('base64');
    const credentials = JSON.stringify({ auths: { [registry.name]: { auth } } });
    await using node = await openStore();
    await using _login = await rootsLogin(credentials);
    await assertRefused(node, reference, 'denied', /the registry does not accept the credentials, or requires some/);
    const authFile = join(node.directory, 'node.json');
    await writeFile(authFile, credentials, { mode: 0o600 });
    await using configured = await openStore({ authFile });
    assert.equal((await configured.store.pull(reference, {}, minute())).id, image.id);
  });

  test('trusts a certificate by the CA in certs.d, or any with insecure', async () => {
    await using registry = await startRegistry({ tls: true });
    await using node = await openStore();
    await registry.push(image.layout, 'safe:1');
    const reference = `${registry.name}/safe:1`;
    await assertRefused(node, reference, 'unavailable', /certificate is not trusted/, { insecure: false });
    await assertRefused(node, `${plain.name}/team/hello:1`, 'unavailable', /speaks plain HTTP/, { insecure: false });
    assert.equal((await node.store.pull(reference, { insecure: true }, minute())).id, image.id);
    await node.store.remove(reference);
    const certificates = join(node.containers, 'certs.d', registry.name);
    await mkdir(certificates);
    await copyFile(registry.caFile, join(certificates, 'ca.crt'));
    assert.equal((await node.store.pull(reference, { insecure: false }, minute())).id, image.id);
  });

  test('uses the credentials of a name for its location in registries.conf, and not for a mirror', async () => {
    await using registry = await startRegistry({ auth: true });
    await using node = await openStore();
    await registry.push(image.layout, 'team/closed:1');
    const reference = 'registry.invalid/a/closed:1';
    const logins = [{ registry: 'registry.invalid', username: user, password }];
    const conf = join(node.containers, 'registries.conf');
    const target = `location = "${registry.name}/team"\ninsecure = true\n`;
    await writeFile(conf, `[[registry]]\nprefix = "registry.invalid/a"\n${target}`);
    await assertRefused(node, reference, 'denied', /does not accept the credentials, or requires some/);
    assert.equal((await node.store.pull(reference, { logins }, minute())).id, image.id);
    await node.store.remove(reference);
    await writeFile(conf, `[[registry]]\nlocation = "registry.invalid/a"\n[[registry.mirror]]\n${target}`);
    await assert.rejects(node.store.pull(reference, { logins }, minute()));
  });

  test('pulls from a mirror that registries.conf names', async () => {
    await using node = await openStore();
    const host = 'registry.invalid';
    const mirror = `[[registry]]\nlocation = "${host}"\n[[registry.mirror]]\nlocation = "${plain.name}"\ninsecure = true\n`;
    await assertRefused(node, `${host}/team/hello:1`, 'unavailable', /does not answer/);
    await writeFile(join(node.containers, 'registries.conf'), mirror);
    const pulled = await node.store.pull(`${host}/team/hello:1`, {}, minute());
    assert.deepEqual(pulled.references, [`${host}/team/hello:1`]);
  });

  test('obeys the signature policy of this machine', async () => {
    await using node = await openStore();
    await writeFile(join(node.containers, 'policy.json'), '{"default":[{"type":"reject"}]}');
    await assertRefused(node, `${plain.name}/team/hello:1`, 'denied', /signature policy refuses it/);
  });

  test('refuses what a registry changed behind its digest', async () => {
    await using registry = await startRegistry();
    await using node = await openStore();
    await registry.push(image.layout, 'lies:1');
    const blob = (digest: string) => {
      const hex = digest.replace('sha256:', '');
      return join(registry.storage, 'docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data');
    };
    const [first = ''] = image.layerDigests;
    const other = await writeLayout(join(work, 'other'), [{ layers: [[{ name: 'evil' }]] }]);
    await copyFile(join(work, 'other/blobs', other[0]?.layerDigests[0]?.replace(':', '/') ?? ''), blob(first));
    await assertRefused(node, `${registry.name}/lies:1`, 'corrupt', /what arrived does not match its digest/);
    await copyFile(
      join(work, 'other/blobs', other[0]?.manifestDigest.replace(':', '/') ?? ''),
      blob(image.manifestDigest),
    );
    const pinned = `${registry.name}/lies@${image.manifestDigest}`;
    await assertRefused(node, pinned, 'corrupt', /digest/);
  });

  test('refuses a config that does not fit its layers, and another processor', async () => {
    await using node = await openStore();
    const cases = [
      ['s390x', { ...hello, architecture: 's390x' }, 'unsupported', /it is for linux\/s390x/],
      [
        'fewer',
        { ...hello, config: { rootfs: { type: 'layers', diff_ids: [] } } },
        'corrupt',
        /2 layers, but its config has 0/,
      ],
      [
        'wrong',
        {
          ...hello,
          config: { rootfs: { type: 'layers', diff_ids: [0, 1].map((n) => `sha256:${`${n}`.repeat(64)}`) } },
        },
        'corrupt',
        /layer 1 .* digest/,
      ],
    ] as const;
    for (const [name, spec, kind, message] of cases) {
      await writeLayout(join(work, name), [spec]);
      await plain.push(join(work, name), `${name}:1`);
      await assertRefused(node, `${plain.name}/${name}:1`, kind, message);
    }
  });

  test('gives up on a silent registry at its time limit or when cancelled, and leaves no process', async () => {
    await using silent = await startSilentServer();
    await using node = await openStore({ answerTimeoutMs: 1000 });
    await assertRefused(node, `${silent.name}/a:1`, 'unavailable', /the registry does not answer in time/);
    await using patient = await openStore();
    const abort = new AbortController();
    const pull = patient.store.pull(`${silent.name}/a:1`, {}, abort.signal);
    const pid = await jailedProcess(patient.directory);
    abort.abort();
    await assert.rejects(pull, { kind: 'cancelled' });
    await untilEmpty(join(patient.directory, 'images/work'));
    await patient.assertEmpty();
    await untilGone(pid);
  });

  test('gives up on a registry that stops in the middle of a layer', async () => {
    await using torn = await startTornRegistry(image);
    await using node = await openStore({ answerTimeoutMs: 5000 }); // skopeo takes part of it to come to the layer
    await assertRefused(node, `${torn.name}/a:1`, 'unavailable', /the registry does not answer in time/);
    assert.ok(torn.sentBytes() > 0, 'it did not come to the layer');
  });

  test('reads a layer before those above it are there, and then waits for none of them', async () => {
    const config = { rootfs: { type: 'layers', diff_ids: [0, 1].map((n) => `sha256:${`${n}`.repeat(64)}`) } };
    const [wrong] = await writeLayout(join(work, 'early'), [{ ...hello, config }]);
    assert.ok(wrong !== undefined);
    await using torn = await startTornRegistry(wrong, 'stalls', wrong.layerDigests.slice(1));
    await using node = await openStore();
    await assertRefused(node, `${torn.name}/a:1`, 'corrupt', /layer 1 .* digest/);
    await untilEmpty(join(node.directory, 'images/work'));
  });

  test('reports that a registry died in the middle of a layer, and that a retry may help', async () => {
    for (const then of ['closes', 'resets'] as const) {
      await using torn = await startTornRegistry(image, then);
      await using node = await openStore();
      const message = /the registry ended the connection in the middle of an answer/;
      await assertRefused(node, `${torn.name}/a:1`, 'unavailable', message);
      assert.ok(torn.sentBytes() > 0, 'it did not come to the layer');
    }
  });

  test('reports that skopeo was killed, alone or with its jail', async () => {
    await using silent = await startSilentServer();
    for (const victim of ['skopeo', 'bwrap'] as const) {
      await using node = await openStore();
      const pull = assertRefused(node, `${silent.name}/a:1`, 'unavailable', /skopeo .* killed by SIGKILL/);
      process.kill(Number(await jailedProcess(node.directory, victim)), 'SIGKILL');
      await pull;
    }
  });

  test('reports a disk without room for the file of an archive, and leaves nothing', async () => {
    await using node = await openStore({ tmpfsBytes: 2 * 1024 * 1024 });
    const content = Buffer.alloc(3 * 1024 * 1024, 'abc');
    const [large] = await writeLayout(join(work, 'large'), [{ layers: [[{ name: 'large', content }]], name: 'l:1' }]);
    await assert.rejects(node.store.load(large?.layout ?? '', undefined, {}, minute()), (error) => {
      assert.ok(error instanceof PodvmError && error.kind === 'exhausted', String(error));
      assert.match(error.message, /the disk is full/);
      return true;
    });
    await node.assertEmpty();
  });

  test('runs skopeo as an unprivileged user, without any capability or sight of this machine', async () => {
    await using silent = await startSilentServer();
    await using node = await openStore();
    const abort = new AbortController();
    const pull = node.store.pull(`${silent.name}/a:1`, {}, abort.signal);
    const pid = await jailedProcess(node.directory);
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(status)?.[1]?.replaceAll('\t', ' ');
    assert.equal(field('Name'), 'skopeo');
    const four = Array.from({ length: 4 }, () => imageUser).join(' ');
    assert.deepEqual([field('Uid'), field('Gid')], [four, four]);
    assert.equal(field('NoNewPrivs'), '1');
    assert.equal(field('Seccomp'), '2');
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) assert.match(field(set) ?? '', /^0+$/, set);
    const seen = await readdir(`/proc/${pid}/root`);
    assert.deepEqual(seen.sort(), ['bin', 'dev', 'etc', 'lib', 'lib64', 'proc', 'tmp', 'usr', 'var', 'work']);
    assert.ok(!(await readdir(`/proc/${pid}/root/etc`)).includes('passwd'));
    abort.abort();
    await assert.rejects(pull, { kind: 'cancelled' });
    await untilEmpty(join(node.directory, 'images/work'));
  });

  test('reports a full disk, and leaves nothing on it', async () => {
    const MiB = 1024 ** 2;
    const contents = { dense: randomBytes(3 * MiB), sparse: Buffer.alloc(3 * MiB, 'abc') };
    for (const [name, content] of Object.entries(contents)) {
      await writeLayout(join(work, name), [{ layers: [[{ name, content }]], compression: 'none' }]);
      await plain.push(join(work, name), `${name}:1`); // compressed
      await using node = await openStore({ tmpfsBytes: 3 * MiB }); // too small for the blobs, or for the file made of them
      await assertRefused(node, `${plain.name}/${name}:1`, 'exhausted', /the disk is full/);
    }
  });
});

/** Writes the file that root's `podman login` leaves. Disposing restores the previous one. */
async function rootsLogin(credentials: string): Promise<AsyncDisposable> {
  const path = '/run/containers/0/auth.json';
  const before = await readFile(path).catch(() => undefined);
  const made = await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await writeFile(path, credentials, { mode: 0o600 });
  return {
    async [Symbol.asyncDispose]() {
      if (before === undefined) await rm(made ?? path, { recursive: true });
      else await writeFile(path, before, { mode: 0o600 });
    },
  };
}

/** The process of this name whose jail has something of this directory mounted. */
async function jailedProcess(directory: string, name = 'skopeo'): Promise<string> {
  const deadlineMs = Date.now() + 60_000;
  for (;;) {
    for (const pid of await pidsThatMount(directory)) {
      if ((await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')) === `${name}\n`) return pid;
    }
    assert.ok(Date.now() < deadlineMs, `no ${name} was started`);
    await delay(20);
  }
}

/** Waits until a killed process is gone, for which the kernel may take some time. */
async function untilGone(pid: string): Promise<void> {
  const deadlineMs = Date.now() + 60_000;
  while ((await readdir('/proc')).includes(pid)) {
    assert.ok(Date.now() < deadlineMs, `process ${pid} does not go`);
    await delay(20);
  }
}

async function untilEmpty(directory: string): Promise<void> {
  const deadlineMs = Date.now() + 60_000;
  while ((await readdir(directory)).length > 0) {
    assert.ok(Date.now() < deadlineMs, `${directory} does not become empty`);
    await delay(20);
  }
}
