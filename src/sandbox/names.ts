import { createHash } from 'node:crypto';
import { PodvmError } from '#base/errors.ts';
import type { SandboxSpec } from './sandbox.ts';

/** What a sandbox is known by. */
export function keyOf({ namespace, name, uid, attempt }: SandboxName): string {
  return attempt === undefined ? `${namespace}/${name}` : `${namespace}/${name}/${uid}/${attempt}`;
}

type SandboxName = Pick<SandboxSpec, 'namespace' | 'name' | 'uid' | 'attempt'>;

/** Values in use, each by one holder: names of sandboxes, user ids of VMMs. */
export interface Names {
  /** Held until disposed. Errors: `alreadyExists`. */
  reserve(spec: SandboxName): Disposable;
}

export function createNames(): Names {
  const held = new Set<string>();
  return {
    reserve(spec) {
      const key = keyOf(spec);
      if (held.has(key)) {
        throw new PodvmError('alreadyExists', `Cannot make the sandbox ${key}: the name is in use`, {
          fix: `Stop it first: podvm stop ${key}`,
        });
      }
      held.add(key);
      return { [Symbol.dispose]: () => held.delete(key) };
    },
  };
}

/** User ids for VMM processes, one a sandbox, so that one guest's VMM cannot touch another's files. */
export interface UserIds {
  /** Held until disposed. Errors: `exhausted`. */
  take(): Disposable & { readonly uid: number };
}

export interface UserIdRange {
  readonly first: number;
  readonly count: number;
}

/** Ids of one state directory. */
const rangeCount = 4096;
/** Above the ids of people and services (login.defs) and of systemd's containers (nspawn: up to 1,879,048,191). */
const firstId = 1_879_100_032;
/** The largest id that every program takes for one. */
const lastId = 0x7fff_fffe;

/**
 * User ids of a state directory's own, by its identity, so that no VMM of another installation on the node runs as the
 * same user. Two directories may get the same of the 65,000 ranges; each sandbox is told apart by its random id as well.
 */
export function userIdsOf({ dev, ino }: { readonly dev: bigint; readonly ino: bigint }): UserIdRange {
  const ranges = Math.floor((lastId - firstId + 1) / rangeCount);
  const digest = createHash('sha256').update(`${dev}:${ino}`).digest();
  return { first: firstId + (digest.readUInt32LE() % ranges) * rangeCount, count: rangeCount };
}

export function createUserIds(range: UserIdRange): UserIds {
  const held = new Set<number>();
  let last = range.first - 1;
  return {
    take() {
      if (held.size >= range.count) {
        throw new PodvmError('exhausted', `Cannot make a sandbox: all ${range.count} user ids for VMMs are in use`);
      }
      // Round the range, so that an id is not used again right after its holder died.
      do last = last + 1 < range.first + range.count ? last + 1 : range.first;
      while (held.has(last));
      const uid = last;
      held.add(uid);
      return { uid, [Symbol.dispose]: () => held.delete(uid) };
    },
  };
}
