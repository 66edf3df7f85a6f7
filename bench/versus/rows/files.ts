import { glob, mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { CriPod } from '../cri-peer.ts';
import { type Row, sleeping, type Values } from './row.ts';

const mebibytes = 64;
const files = 300;
const dropTimeoutMs = 60_000;

/** Prints the seconds that a command took; the shell's own clock has hundredths. */
const clock = 'now() { read -r up rest </proc/uptime; echo $up; }; from=$(now)';
const print = 'echo "TOOK $from $(now)"';
const forgets = 'sync; if [ -w /proc/sys/vm/drop_caches ]; then echo 3 >/proc/sys/vm/drop_caches; fi';

/**
 * Both caches forget what was written before it is read: the container's kernel, if it has its own, and of the host's cache
 * the files in which a runtime may keep it (dd(1), `nocache`), since others may be at work on the host.
 */
export const filesRow: Row = async ({ field }) => {
  return async (name): Promise<Values> => {
    const peer = field.peer(name);
    const shared = await mkdtemp(join(field.prepared.work, 'shared-'));
    await using pod = await CriPod.start(peer, {
      name: 'files',
      image: field.images.base,
      command: sleeping,
      mounts: [{ hostPath: shared, containerPath: '/volume' }],
      privileged: name === 'podvm', // to drop the page cache of its machine's kernel
    });
    const large = `large-${pod.sandboxId.slice(0, 12)}`;
    const seconds = async (script: string): Promise<number> => {
      const [, from, to] =
        /^TOOK (\S+) (\S+)$/m.exec(await pod.exec('sh', '-ec', `${clock}; ${script}; ${print}`)) ?? [];
      return Math.max(0.01, Number(to) - Number(from)); // the clock's own step
    };
    const measure = async (directory: string, kept: readonly string[]) => {
      const inside = `mkdir -p ${directory}; cd ${directory}`;
      const write = await seconds(
        `${inside}; dd if=/dev/zero of=${large} bs=1M count=${mebibytes} conv=fsync 2>/dev/null`,
      );
      await pod.exec('sh', '-ec', name === 'podvm' ? forgets : 'sync');
      if ((await dropFromHostCache(kept)) === 0) throw new Error(`${name}: no file of the host holds ${directory}`);
      const read = await seconds(`${inside}; dd if=${large} of=/dev/null bs=1M 2>/dev/null`);
      const sizes = await pod.exec('sh', '-ec', `cd ${directory}; wc -c <${large}; rm ${large}`);
      const loop = `i=0; while [ $i -lt ${files} ]; do echo x >small-$i; i=$((i+1)); done`;
      const create = await seconds(`${inside}; ${loop}`);
      const count = await pod.exec('sh', '-ec', `cd ${directory}; ls | wc -l; cat small-${files - 1}`);
      const [bytes, made] = [mebibytes * 1024 ** 2, `${files}\nx\n`];
      if (Number(sizes) !== bytes || count !== made) throw new Error(`${name}: ${directory} holds ${sizes}, ${count}`);
      return { write: bytes / 1e6 / write, read: bytes / 1e6 / read, create: files / create };
    };
    const root = await measure('/root-files', [
      `${peer.directory}/**/${large}`, // in an overlay
      `${peer.directory}/sandboxes/${pod.sandboxId}/**`, // in a disk of a machine
    ]);
    const volume = await measure('/volume', [join(shared, large)]);
    return {
      ...{ rootWrite: root.write, rootRead: root.read, rootCreate: root.create },
      ...{ volumeWrite: volume.write, volumeRead: volume.read, volumeCreate: volume.create },
    };
  };
};

/** Returns how many files that were. */
async function dropFromHostCache(patterns: readonly string[]): Promise<number> {
  let dropped = 0;
  for await (const found of glob(patterns, { withFileTypes: true })) {
    if (!found.isFile()) continue;
    const of = `of=${join(found.parentPath, found.name)}`;
    const args = [of, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none'];
    const { code } = await run('dd', args, { timeoutMs: dropTimeoutMs, okCodes: 'any' }); // one may go meanwhile
    if (code === 0) dropped += 1;
  }
  return dropped;
}
