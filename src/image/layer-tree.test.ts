import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { type Directory, LayerTree } from './layer-tree.ts';
import { imageLimits } from './limits.ts';
import type { TarMember } from './tar-reader.ts';

const fault = (reason: string) => new PodvmError('corrupt', reason);

/** A file, a directory, a whiteout or an opaque mark; `mode` tells who put it there. */
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
 * What a plain map of paths makes of layers: whiteouts first, on what is there from lower layers, then the layer's own
 * files. A layer that has both a whiteout for a name and something of that name or below keeps its own.
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

/** Directories that a layer has by naming them or something in them: a whiteout empties these, but leaves them. */
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

/** What the tree and the model make of layers, of which members that contradict each other are left out. */
function both(all: readonly (readonly Step[])[], contradicts: (one: Step, other: Step) => boolean) {
  const plain = all.map((steps) =>
    steps.filter((one, at) => !steps.slice(0, at).some((other) => contradicts(one, other))),
  );
  const tree = new LayerTree(imageLimits);
  for (const [layer, steps] of plain.entries())
    for (const [place, one] of steps.entries()) tree.add(memberOf(one, layer), layer, place, fault);
  return [sorted(filesOf(tree.root)), sorted(model(plain))] as const;
}

test('LayerTree comes to what a plain map of paths comes to, whatever the layers', () => {
  fc.assert(
    fc.property(layers, (all) => {
      const [found, expected] = both(all, (one, other) => isMarked(one, other) || isOverwritten(one, other));
      assert.deepEqual(found, expected);
    }),
    { numRuns: 2000 },
  );
});

test('LayerTree keeps what a layer puts where it has a whiteout too, in whatever order', () => {
  fc.assert(
    fc.property(layers, (all) => {
      // The mode of a directory that a layer both hides and enters is not said anywhere.
      const names = (files: readonly (readonly [string, string])[]) =>
        files.map(([name, what]) => [name, what.split(' ')[0]]);
      const [found, expected] = both(all, isOverwritten);
      assert.deepEqual(names(found), names(expected));
    }),
    { numRuns: 2000 },
  );
});

/** Which of two members of one name wins, and what a file below a file means, other tests say. */
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
