import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { type Directory, LayerTree } from './layer-tree.ts';
import { imageLimits } from '../limits.ts';
import type { TarMember } from '../tar/tar-reader.ts';
import { propertyRuns } from '../../../test/property-runs.ts';

const fault = (reason: string) => new PodvmError('corrupt', reason);

/** A file, a directory, a whiteout or an opaque mark; `mode` identifies its layer. */
interface Step {
  readonly kind: 'file' | 'directory' | 'whiteout' | 'opaque';
  readonly path: string;
}

const path = fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('file', 'file', 'directory', 'directory', 'whiteout', 'opaque'),
  path,
});
const layers = fc.array(fc.array(step, { maxLength: 6 }), { minLength: 1, maxLength: 4 });

const parentOf = (name: string) => name.slice(0, Math.max(0, name.lastIndexOf('/')));
const isBelow = (name: string, directory: string) => directory === '' || name.startsWith(`${directory}/`);

/**
 * A model of layers as a plain map of paths: first the whiteouts, which hide entries of lower layers, then the layer's
 * own files. A layer with both a whiteout for a name and a file of that name or below keeps the file.
 */
function model(all: readonly (readonly Step[])[]): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  const drop = (fits: (name: string) => boolean) =>
    [...files.keys()].filter(fits).forEach((name) => files.delete(name));
  const enter = (name: string) => {
    if (name === '') return;
    enter(parentOf(name));
    if (files.get(name)?.startsWith('directory') !== true) files.set(name, 'directory 755');
  };
  for (const [index, steps] of all.entries()) {
    const mode = (0o100 + index).toString(8);
    const kept = ownDirectories(steps);
    for (const { kind, path: name } of steps) {
      if (kind === 'whiteout')
        drop((other) => (other === name && !kept.has(name)) || (isBelow(other, name) && !kept.has(other)));
      if (kind === 'opaque') drop((other) => isBelow(other, name) && !kept.has(other));
    }
    for (const { kind, path: name } of steps) {
      enter(kind === 'opaque' ? name : parentOf(name));
      if (kind === 'file') {
        drop((other) => isBelow(other, name));
        files.set(name, `file ${mode}`);
      }
      if (kind === 'directory') files.set(name, `directory ${mode}`);
    }
  }
  return files;
}

/** Directories that a layer names or fills. A whiteout empties them, but keeps them. */
function ownDirectories(steps: readonly Step[]): ReadonlySet<string> {
  const own = new Set<string>();
  for (const { kind, path: name } of steps) {
    const first = kind === 'directory' || kind === 'opaque' ? name : parentOf(name);
    for (let at = first; at !== ''; at = parentOf(at)) own.add(at);
  }
  return own;
}

function memberOf({ kind, path: name }: Step, layer: number): TarMember {
  const base = name.slice(name.lastIndexOf('/') + 1);
  const names = { whiteout: `${name.slice(0, name.length - base.length)}.wh.${base}`, opaque: `${name}/.wh..wh..opq` };
  return {
    name: kind === 'file' || kind === 'directory' ? name : names[kind],
    type: kind === 'directory' ? 'directory' : 'file',
    mode: 0o100 + layer,
    uid: 0,
    gid: 0,
    mtimeS: 0,
    mtimeNs: 0,
    size: 0,
    target: '',
    device: [0, 0],
    xattrs: new Map(),
  };
}

function filesOf(directory: Directory, prefix = ''): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  for (const [name, { node }] of directory.entries) {
    const full = `${prefix}${name}`;
    const meta = node.kind === 'directory' ? node.meta : node.member;
    files.set(full, `${node.kind === 'directory' ? 'directory' : 'file'} ${meta.mode.toString(8)}`);
    if (node.kind === 'directory') for (const [inner, what] of filesOf(node, `${full}/`)) files.set(inner, what);
  }
  return files;
}

const sorted = (files: ReadonlyMap<string, string>) => [...files].sort(([a], [b]) => (a < b ? -1 : 1));

/** The results of tree and model for these layers, without members that contradict each other. */
function both(all: readonly (readonly Step[])[], contradicts: (one: Step, other: Step) => boolean) {
  const plain = all.map((steps) =>
    steps.filter((one, at) => !steps.slice(0, at).some((other) => contradicts(one, other))),
  );
  const tree = new LayerTree(imageLimits);
  for (const [layer, steps] of plain.entries()) for (const one of steps) tree.add(memberOf(one, layer), layer, fault);
  return [sorted(filesOf(tree.root)), sorted(model(plain))] as const;
}

test('LayerTree has the result of a plain map of paths, for any layers', () => {
  fc.assert(
    fc.property(layers, (all) => {
      const [found, expected] = both(all, (one, other) => isMarked(one, other) || isOverwritten(one, other));
      assert.deepEqual(found, expected);
    }),
    { numRuns: propertyRuns(2000) },
  );
});

test('LayerTree keeps a file for which its own layer has a whiteout, in any order', () => {
  fc.assert(
    fc.property(layers, (all) => {
      // The mode of a directory that a layer both hides and enters is not specified.
      const names = (files: readonly (readonly [string, string])[]) =>
        files.map(([name, what]) => [name, what.split(' ')[0]]);
      const [found, expected] = both(all, isOverwritten);
      assert.deepEqual(names(found), names(expected));
    }),
    { numRuns: propertyRuns(2000) },
  );
});

/**
 * Whether two members contradict each other. Other tests check which of two members of one name wins, and the meaning
 * of a file below a file.
 */
function isOverwritten({ kind, path: a }: Step, { kind: otherKind, path: b }: Step): boolean {
  if (kind !== 'opaque' && kind !== 'whiteout' && a === b && otherKind !== 'opaque' && otherKind !== 'whiteout')
    return true;
  return (
    (kind === 'file' && (isBelow(b, a) || (otherKind === 'opaque' && a === b))) ||
    (otherKind === 'file' && (isBelow(a, b) || (kind === 'opaque' && a === b)))
  );
}

function isMarked(one: Step, other: Step): boolean {
  const isMark = [one, other].some(({ kind }) => kind === 'whiteout' || kind === 'opaque');
  return isMark && (one.path === other.path || isBelow(one.path, other.path) || isBelow(other.path, one.path));
}

const member = (name: string, more: Partial<TarMember> = {}): TarMember => ({
  ...memberOf({ kind: 'file', path: name }, 0),
  ...more,
});

/** Adds all members to a tree with these limits, each as the first of its own layer. */
const addAll = (members: readonly TarMember[], limits: Partial<typeof imageLimits>) => {
  const tree = new LayerTree({ ...imageLimits, ...limits });
  for (const [layer, one] of members.entries()) tree.add(one, layer, fault);
};

/** Asserts that the members are accepted at the limit, and refused one below it. */
const assertLimit = (
  limit: 'maxMetadataBytes' | 'maxPathSteps' | 'maxEntries',
  needed: number,
  message: RegExp,
  members: readonly TarMember[],
) => {
  addAll(members, { [limit]: needed });
  assert.throws(() => addAll(members, { [limit]: needed - 1 }), { message });
};

test('LayerTree bounds names, targets and attributes of all members together', () => {
  const message = /its names and attributes have more than \d+ bytes together/;
  assertLimit('maxMetadataBytes', 3, message, [member('abc')]);
  assertLimit('maxMetadataBytes', 2, message, [member('a'), member('a')]); // counts replaced members, too
  assertLimit('maxMetadataBytes', 1 + 5, message, [member('s', { type: 'symlink', target: '/etc/' })]);
  assertLimit('maxMetadataBytes', 4, message, [member('a/b/c/d')]); // counts directories that no layer describes, too
  const xattrs = new Map([['user.x', 'value']]);
  const attributes = 2 * (1 + 6 + 5 + 64);
  assertLimit('maxMetadataBytes', attributes, message, [member('a', { xattrs }), member('b', { xattrs })]);
});

test('LayerTree bounds the steps of all paths, links and whiteouts together', () => {
  const message = /its paths and links take more than \d+ steps to follow/;
  assertLimit('maxPathSteps', 4, message, [member('a/b'), member('a/c')]);
  assertLimit('maxPathSteps', 3999 + 1000, message, [
    member('x'.padStart(4096 - 97, '/')),
    member('y'.padStart(1000, '/')),
  ]);
  const link = member('l', { type: 'symlink', target: '../../../a' });
  assertLimit('maxPathSteps', 1 + 2 + 4 + 2 + 4, message, [link, member('l/x'), member('l/y')]);
  // A second whiteout visits the files of its own layer again.
  const opaque = [member('d/.wh..wh..opq'), member('d/.wh..wh..opq')];
  const tree = (limits: Partial<typeof imageLimits>) => {
    const made = new LayerTree({ ...imageLimits, ...limits });
    for (const one of [member('d/a'), member('d/b'), ...opaque]) made.add(one, 1, fault);
  };
  tree({ maxPathSteps: 4 * 2 + 2 * 2 });
  assert.throws(() => tree({ maxPathSteps: 4 * 2 + 2 * 2 - 1 }), { message });
});

test('LayerTree counts directories without an entry as files', () => {
  assertLimit('maxEntries', 4, /has more than 3 files/, [member('a/b/c/d')]);
  assertLimit('maxEntries', 5, /has more than 4 files/, [member('a/b/c/d'), member('a/b/e')]);
});

test('LayerTree gives symbolic links the mode that Linux gives them', () => {
  const tree = new LayerTree(imageLimits);
  for (const type of ['symlink', 'file'] as const) tree.add(member(type, { type, mode: 0o640 }), 0, fault);
  const modes = [...tree.root.entries].map(([name, { node }]) => [
    name,
    node.kind === 'leaf' ? node.member.mode : undefined,
  ]);
  assert.deepEqual(modes, [
    ['symlink', 0o777],
    ['file', 0o640],
  ]);
});
