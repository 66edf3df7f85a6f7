import { createHash } from 'node:crypto';
import { PodvmError } from '#base/errors.ts';
import { hasAllIds, subordinateVmms, type UserIdRange } from '#host/user-ids.ts';
import type { SandboxSpec } from './sandbox.ts';

/** The key by which a sandbox is found. */
export function keyOf({ namespace, name, uid, attempt }: SandboxName): string {
  return attempt === undefined ? `${namespace}/${name}` : `${namespace}/${name}/${uid}/${attempt}`;
}

type SandboxName = Pick<SandboxSpec, 'namespace' | 'name' | 'uid' | 'attempt'>;

/** Values in use, each with one holder: names of sandboxes, user ids of VMMs. */
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

/** User ids for VMM processes, one per sandbox, so that one guest's VMM cannot access another's files. */
export interface UserIds {
  /** Held until disposed. `uid`: takes that id, which a running VMM has already. Errors: `exhausted`. */
  take(uid?: number): Disposable & { readonly uid: number };
}

/** Number of ids of one state directory: of root, and of an ordinary user, who has few. */
const [rangeCount, subordinateCount] = [4096, 256];
/**
 * Above the ids of people and services (login.defs), of systemd's containers (nspawn: up to 1,879,048,191) and of programs
 * that read images (`src/image/import/image-user.ts`).
 */
const firstId = 1_879_100_032;
/** The largest id that every program accepts. */
const lastId = 0x7fff_fffe;

/**
 * User ids derived from the identity of a state directory, so that VMMs of different installations on a node have different
 * users. Two directories may get the same one of the 65,000 ranges, or of an ordinary user's 16; sandboxes are also identified by
 * their random ids, and the namespaces of two state directories of a user see nothing of each other.
 */
export function userIdsOf({ dev, ino }: { readonly dev: bigint; readonly ino: bigint }): UserIdRange {
  const all = hasAllIds() ? { first: firstId, count: lastId - firstId + 1 } : subordinateVmms;
  return rangeWithin(all, hasAllIds() ? rangeCount : subordinateCount, `${dev}:${ino}`);
}

/** The range of `count` ids that belongs to an identity. */
export function rangeWithin(all: UserIdRange, count: number, identity: string): UserIdRange {
  const ranges = Math.floor(all.count / count);
  const digest = createHash('sha256').update(identity).digest();
  return { first: all.first + (digest.readUInt32LE() % ranges) * count, count };
}

export function createUserIds(range: UserIdRange): UserIds {
  const held = new Set<number>();
  let last = range.first - 1;
  const hold = (uid: number) => {
    held.add(uid);
    return { uid, [Symbol.dispose]: () => held.delete(uid) };
  };
  return {
    take(uid) {
      if (uid !== undefined) return hold(uid);
      if (held.size >= range.count) {
        throw new PodvmError('exhausted', `Cannot make a sandbox: all ${range.count} user ids for VMMs are in use`, {
          fix: 'Remove stopped sandboxes, or stop pods.',
        });
      }
      // Goes around the range, so that an id is not reused directly after its holder ended.
      do last = last + 1 < range.first + range.count ? last + 1 : range.first;
      while (held.has(last));
      return hold(last);
    },
  };
}
