import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { type Figures, Sheet } from './figures.ts';
import { openNode, type Node } from './node.ts';
import type { SuiteOptions } from './suite.ts';

const modes = ['layer', 'scratch', 'tmpfs', 'block', 'share'] as const;
/** Amount that is written and number of files that are made; less where all of it passes the host's file server. */
const amounts = { usual: { mebibytes: 256, files: 1000 }, share: { mebibytes: 32, files: 300 } } as const;
const blockBytes = 2 * 1024 ** 3;

/**
 * Writes and syncs a file in a directory, reads it past its own kernel's cache, and makes many small files. They are
 * not removed: ext4 makes files much more slowly where others were removed in the last minutes. Every line is
 * `IO <mode> <what> <seconds before> <seconds after>`; the shell's clock has hundredths.
 */
const measureScript = `
now() { read -r up rest </proc/uptime; echo $up; }
measure() { # MODE DIRECTORY MEBIBYTES FILES [COMMAND]
  cd $2
  before=$(now); dd if=/dev/zero of=large bs=1M count=$3 conv=fsync 2>/dev/null; echo IO $1 write $before $(now)
  $5
  before=$(now); dd if=large of=/dev/null bs=1M 2>/dev/null; echo IO $1 read $before $(now)
  rm large
  before=$(now); i=0; while [ $i -lt $4 ]; do echo x >small-$i; i=$((i+1)); done; echo IO $1 create $before $(now)
}
`;
const forget = `forget() { sync; echo 3 >/proc/sys/vm/drop_caches; }\n`;

/**
 * Input and output by how a directory reaches the container: `io.<mode>.seqWriteMBps` (written and synced),
 * `io.<mode>.seqReadMBps` (nothing cached in the guest), `io.<mode>.createsPerSecond` (small files).
 */
export async function ioSuite({ rounds, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  await using undo = new AsyncDisposableStack();
  const node = undo.use(await openNode({ poolSize: 0 }));
  const directory = await mkdtemp('/var/tmp/podvm-bench-io-');
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  for (let round = 1; round <= rounds; round += 1) {
    await measurePod(node, directory, sheet);
    say(`round ${round} of ${rounds}`);
  }
  return sheet.figures;
}

async function measurePod(node: Node, directory: string, sheet: Sheet): Promise<void> {
  const image = join(directory, 'block.img');
  const shared = await mkdtemp(join(directory, 'shared-'));
  await writeFile(image, '');
  await truncate(image, blockBytes);
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', image]);
  await using pods = node.start(podYaml(image, shared));
  addAll(await pods.finished(), sheet);
}

function amountsOf(mode: string): (typeof amounts)[keyof typeof amounts] {
  return mode === 'share' ? amounts.share : amounts.usual;
}

function measureCommand(mode: string, directory: string): string {
  const { mebibytes, files } = amountsOf(mode);
  return `measure ${mode} ${directory} ${mebibytes} ${files}`;
}

function podYaml(image: string, shared: string): string {
  const paths = modes.filter((mode) => mode !== 'layer');
  const script = [
    measureScript,
    forget,
    'mkdir /layer',
    ...modes.map((mode) => `${measureCommand(mode, `/${mode}`)} forget`),
  ].join('\n');
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'bench-io', annotations: { 'podvm.dev/block-volumes': image } },
    spec: {
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 0,
      volumes: [
        { name: 'scratch', emptyDir: {} },
        { name: 'tmpfs', emptyDir: { medium: 'Memory' } },
        { name: 'block', hostPath: { path: image, type: 'File' } },
        { name: 'share', hostPath: { path: shared, type: 'Directory' } },
      ],
      containers: [
        {
          name: 'main',
          image: 'localhost/podvm/base:latest',
          command: ['sh', '-c', script],
          securityContext: { privileged: true }, // to drop the page cache of its machine's kernel
          volumeMounts: paths.map((mode) => ({ name: mode, mountPath: `/${mode}` })),
        },
      ],
    },
  });
}

function addAll(output: string, sheet: Sheet): void {
  for (const [, mode = '', what = '', before, after] of output.matchAll(/IO (\w+) (\w+) ([\d.]+) ([\d.]+)/g)) {
    const { mebibytes, files } = amountsOf(mode);
    const seconds = Math.max(0.01, Number(after) - Number(before)); // the clock's own step
    if (what === 'create') sheet.add(`io.${mode}.createsPerSecond`, files / seconds);
    else {
      const name = what === 'write' ? 'seqWriteMBps' : 'seqReadMBps';
      sheet.add(`io.${mode}.${name}`, (mebibytes * 1024 ** 2) / 1e6 / seconds);
    }
  }
}
