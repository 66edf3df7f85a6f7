import { PodvmError } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { TreeLimits } from '#storage/host-tree.ts';
import type { VolumeFile } from '../sandbox.ts';

/** Raw bytes in one call; the wire's limit (`maxPushPartBytes`). */
const partBytes = 64 * 1024;

/**
 * Sends a whole new version of a push volume; the guest sees all of it or nothing. The files were read from the host within
 * its limits, or have passed `checkPushed`. Errors: the agent's.
 */
export async function pushVolume(
  guest: Pick<Link, 'call'>,
  volume: string,
  files: readonly VolumeFile[],
  signal: AbortSignal,
): Promise<void> {
  const { push } = await guest.call('beginPush', { volume }, signal);
  try {
    for (const { path, bytes, mode, uid, gid } of files) {
      const owner = { ...(uid === undefined ? {} : { uid }), ...(gid === undefined ? {} : { gid }) };
      for (let at = 0; at === 0 || at < bytes.length; at += partBytes) {
        const data = Buffer.from(bytes.subarray(at, at + partBytes)).toString('base64');
        await guest.call('pushFile', { push, path, mode: mode & permissions, ...owner, data }, signal);
      }
    }
    await guest.call('commitPush', { push }, signal);
  } catch (error) {
    await guest.call('abortPush', { push }, AbortSignal.timeout(abortTimeoutMs)).catch(() => {}); // the error below tells
    throw error;
  }
}

/**
 * Checks whether one volume can hold the files, before a machine is made or asked. Errors: `exhausted`, naming volume,
 * bytes and limit; `invalid` (paths).
 */
export function checkPushed(volume: string, files: readonly VolumeFile[], { maxBytes, maxFiles }: TreeLimits): void {
  for (const { path } of files) checkPath(volume, path);
  const total = files.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const refuse = (unit: string, limit: number, got: number) =>
    new PodvmError(
      'exhausted',
      `Cannot fill volume ${volume}: a volume that is copied into the machine has at most ${limit} ${unit}, got ${got}`,
      { fix: 'Put large content into an image, an emptyDir or a hostPath volume.' },
    );
  if (total > maxBytes) throw refuse('bytes', maxBytes, total);
  if (files.length > maxFiles) throw refuse('files', maxFiles, files.length);
}

const abortTimeoutMs = 5000;
/** Drops set-id bits. */
const permissions = 0o777;

function checkPath(volume: string, path: string): void {
  const parts = path.split('/');
  if (parts.every((part) => part !== '' && part !== '.' && part !== '..')) return;
  throw new PodvmError(
    'invalid',
    `Cannot fill volume ${volume}: a file's path must be relative and without "." or "..", got ${JSON.stringify(path)}`,
    { fix: 'Correct the path or key of the ConfigMap, Secret or projected volume.' },
  );
}
