import { PodvmError } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { VolumeFile } from './sandbox.ts';

/** Raw bytes in one call; the wire's limit (`maxPushPartBytes`). */
const partBytes = 64 * 1024;

/**
 * Sends a whole new version of a push volume; the guest sees all of it or nothing. Errors: `invalid` for a path that
 * leads out of the volume, and the agent's.
 */
export async function pushVolume(
  guest: Pick<Link, 'call'>,
  volume: string,
  files: readonly VolumeFile[],
  signal: AbortSignal,
): Promise<void> {
  for (const { path } of files) checkPath(volume, path);
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
    await guest.call('abortPush', { push }, AbortSignal.timeout(abortTimeoutMs)).catch(() => {}); // it says why below
    throw error;
  }
}

const abortTimeoutMs = 5000;
/** Set-id bits of a small file are nobody's business. */
const permissions = 0o777;

function checkPath(volume: string, path: string): void {
  const parts = path.split('/');
  if (parts.every((part) => part !== '' && part !== '.' && part !== '..')) return;
  throw new PodvmError(
    'invalid',
    `Cannot fill volume ${volume}: a file's path must be relative and without "." or "..", got ${JSON.stringify(path)}`,
  );
}
