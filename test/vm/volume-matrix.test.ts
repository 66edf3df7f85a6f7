import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { openImageStore } from '#image/store/image-store.ts';
import { podAnnotations } from '#base/pod-annotations.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { ContainerMount, MountSource, Sandbox, SandboxSpec } from '#sandbox/sandbox.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { openNode, readAssets, whyNoVm } from './node.ts';
import { KubeletDirectory } from './kubelet-directory.ts';
import { outputToEnd } from './output-to-end.ts';
import { buildProbe } from './probe.ts';
import { openPlain } from './volume-containers.ts';
import {
  content,
  fillIn,
  inside,
  makeVolumes,
  modes,
  writableModes,
  type HostVolumes,
  type MatrixMount,
  type World,
} from './volume-matrix.ts';

const skip = await whyNoVm();
const imageName = 'localhost/podvm/matrix:1';
const minute = () => AbortSignal.timeout(60_000);

const emptyDirsEnd = 'An emptyDir ends with its sandbox.';
const emptyDirsAreTheGuests = "What the host writes into an emptyDir's directory does not appear in the pod.";
/** Outcomes that differ from a plain container's, each with the sentence of docs/limitations.md that says so. */
const differences: Readonly<Record<string, readonly [outcome: string, sentence: string]>> = {
  'share inotify': ['unseen', '`inotify` reports no changes made on the host.'],
  'scratch pod restart': ['gone', emptyDirsEnd],
  'tmpfs pod restart': ['gone', emptyDirsEnd],
  'scratch update from the host': ['unseen', emptyDirsAreTheGuests],
  'tmpfs update from the host': ['unseen', emptyDirsAreTheGuests],
};

/** Rows that depend on the host's kernel: a tmpfs supports these since Linux 6.6. */
const ofKernels = new Set(['tmpfs O_DIRECT', 'tmpfs O_DIRECT of a new file']);
/** Operations that succeed on a read-only mount. */
const harmless = /^\S+( read-only)? (read|mmap to read|flock|subPath|pod restart|update from the host)$/;

interface PodOptions {
  /** A directory to work in. */
  readonly directory: string;
  /** The directory with the probe. */
  readonly programs: string;
  readonly volumes: HostVolumes;
}

/** The pod of the matrix in a machine. Disposing removes it, and checks that nothing is left. */
async function openPod({ directory, programs, volumes }: PodOptions): Promise<World & AsyncDisposable> {
  await using undo = new AsyncDisposableStack();
  const { sysroot } = (await readAssets()) ?? assert.fail('no assets');
  const images = await openImageStore({ directory: join(directory, 'images'), sysroot, log: silentLog });
  await images.load(await imageLayout(directory), undefined, {}, minute());
  const node = await openNode({ around: (parts) => ({ ...parts, images }) });
  undo.defer(async () => {
    const left = await node.leftovers();
    await node[Symbol.asyncDispose]();
    assert.deepEqual(left, []);
  });

  const spec: SandboxSpec = {
    ...sandboxSpec,
    name: 'matrix',
    network: 'none',
    annotations: { [podAnnotations.blockVolumes.name]: volumes.blockImage },
  };
  let sandbox = await node.sandboxes.run(spec, minute());
  undo.defer(() => sandbox.remove());
  const sourceOf = ({ mode, subPath }: MatrixMount): MountSource => {
    if (mode === 'image') return { kind: 'image', image: imageName, pullPolicy: 'Never' };
    if (mode === 'share' || mode === 'block') return ofHost(mode === 'share' ? volumes.share : volumes.blockImage);
    return ofHost(volumes.kept[mode][subPath === undefined ? 'path' : 'subPath']);
  };
  const mountOf = (mount: MatrixMount): ContainerMount => ({
    source: sourceOf(mount),
    mountPath: mount.at,
    readOnly: mount.readOnly,
    ...(mount.subPath === undefined || mount.mode in volumes.kept ? {} : { subPath: mount.subPath }),
  });
  const owned = undo.move();
  return {
    async run(script, mounts) {
      const bin: ContainerMount = { source: ofHost(programs), mountPath: '/bin2', readOnly: true };
      return await outputOf(sandbox, script, [bin, ...mounts.map(mountOf)], mounts);
    },
    async restart() {
      await sandbox.remove();
      sandbox = await node.sandboxes.run(spec, minute());
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const ofHost = (path: string): MountSource => ({ kind: 'host', path, propagation: 'private' });

async function imageLayout(directory: string): Promise<string> {
  const layout = join(directory, 'layout');
  const files = Object.entries(content).map(([name, text]) => ({ name, content: text, mode: 0o644 }));
  const sub = [
    { name: 'sub', type: 'directory' as const, mode: 0o755 },
    { name: 'sub/inside', content: inside, mode: 0o644 },
  ];
  await writeLayout(layout, [{ layers: [[...files, ...sub]], name: imageName }]);
  return layout;
}

/** Runs it in a container of its own, and asserts the modes of its mounts. */
async function outputOf(
  sandbox: Sandbox,
  script: string,
  mounts: readonly ContainerMount[],
  meant: readonly MatrixMount[],
): Promise<string> {
  const image = 'localhost/podvm/base:latest';
  const container = await sandbox.createContainer(
    { ...containerSpec, image, command: ['sh', '-c', script], mounts },
    minute(),
  );
  assert.deepEqual(
    container.status.mounts.slice(1),
    meant.map(({ at, mode }) => ({ mountPath: at, mode })),
  );
  return await outputToEnd(container, minute);
}

/** Needs loop devices and crun on the host (test/host-packages.txt). */
describe('each volume mode, against plain containers', { skip, timeout: 300_000 }, () => {
  test('behaves as for a plain container, except for what docs/limitations.md says', async () => {
    await using undo = new AsyncDisposableStack();
    const root = await mkdtemp('/var/tmp/podvm-matrix-');
    undo.defer(() => rm(root, { recursive: true }));
    await chmod(root, 0o711); // jailed tools reach the images in it
    const kubelet = undo.use(await KubeletDirectory.open(sandboxSpec.uid));
    const programs = join(root, 'bin');
    await mkdir(programs);
    await buildProbe(join(programs, 'volume-probe'), 'volume-probe');
    const assets = (await readAssets()) ?? assert.fail('no assets');
    const busybox = join(assets.sysroot, 'usr/bin/busybox');

    const of = async (name: string) => {
      const directory = join(root, name);
      await mkdir(directory);
      return { directory, programs, busybox, volumes: await makeVolumes(directory, kubelet) };
    };

    const forPlain = await of('plain');
    const plain = await fillIn(undo.use(await openPlain(forPlain)), forPlain.volumes);
    seesPlainRows(plain);
    const forPod = await of('pod');
    const pod = await fillIn(undo.use(await openPod(forPod)), forPod.volumes);
    assert.deepEqual([...pod.keys()], [...plain.keys()]);
    const found = [...pod].filter(([row, outcome]) => outcome !== plain.get(row) && !ofKernels.has(row));
    const named = Object.entries(differences).map(([row, [outcome]]) => [row, outcome] as const);
    assert.deepEqual(Object.fromEntries(found), Object.fromEntries(named));
  });

  test('differs where docs/limitations.md says so', async () => {
    const page = await readFile(join(import.meta.dirname, '../../docs/limitations.md'), 'utf8');
    const sentences = page.replace(/\s+/g, ' ');
    for (const [row, [, sentence]] of Object.entries(differences)) assert.ok(sentences.includes(sentence), row);
  });
});

/** Asserts that the rows succeed in plain containers: otherwise equal results would prove nothing. */
function seesPlainRows(plain: ReadonlyMap<string, string>): void {
  for (const [row, outcome] of plain) {
    const isReadOnly = / read-only /.test(row) || /^(push|image) /.test(row);
    const wanted = row.endsWith('pod restart') ? 'kept' : isReadOnly && !harmless.test(row) ? 'EROFS' : 'ok';
    if (!ofKernels.has(row)) assert.equal(outcome, wanted, row);
  }
  const probed = [...writableModes.flatMap((mode) => [mode, `${mode} read-only`]), 'push', 'image'];
  for (const each of probed) assert.ok(plain.has(`${each} write`) && plain.has(`${each} O_DIRECT`), each);
  for (const mode of modes) assert.ok(plain.has(`${mode} subPath`) && plain.has(`${mode} pod restart`), mode);
}
