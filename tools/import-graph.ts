import { globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseSync } from 'oxc-parser';

/** Imports of each node. Every node is a key, and none imports itself. */
export type Graph = ReadonlyMap<string, ReadonlySet<string>>;

/** The shape of a graph; all names are in the order of the alphabet. */
export interface Shape {
  /** Nodes on each floor, the lowest first: a node stands one above the highest that it imports. */
  readonly floors: readonly (readonly string[])[];
  /** Nodes that reach each other; they share a floor. */
  readonly circles: readonly (readonly string[])[];
  /** Arrows that do not lead to a lower floor: those within circles. */
  readonly upward: readonly (readonly [from: string, to: string])[];
  readonly arrows: number;
}

/**
 * Imports among the files below `repo`/src, tests left out: of values, of types, and at run time. Nodes are paths below
 * src/. Errors: those of reading; a file that cannot be parsed.
 */
export async function readImports(repo: string): Promise<Graph> {
  const src = join(repo, 'src');
  const files = globSync('**/*.ts', { cwd: src, exclude: ['**/*.test.ts'] }).sort();
  const known = new Set(files);
  const graph = new Map<string, ReadonlySet<string>>();
  for (const file of files) {
    const names = importedNames(file, await readFile(join(src, file), 'utf8'));
    const targets = names.flatMap((name) => {
      if (name.startsWith('#')) return [name.slice(1)];
      return name.startsWith('.') ? [join(dirname(file), name)] : [];
    });
    graph.set(file, new Set(targets.filter((target) => known.has(target) && target !== file).sort()));
  }
  return graph;
}

function importedNames(file: string, source: string): readonly string[] {
  const { module, errors } = parseSync(file, source);
  if (errors[0] !== undefined) throw new Error(`Cannot parse src/${file}: ${errors[0].message}`);
  const exported = module.staticExports.flatMap(({ entries }) => entries.flatMap((entry) => entry.moduleRequest ?? []));
  const atRunTime = module.dynamicImports.flatMap(({ moduleRequest: { start, end } }) => {
    const [, name] = /^['"](.*)['"]$/.exec(source.slice(start, end)) ?? [];
    return name ?? [];
  });
  return [...module.staticImports.map((it) => it.moduleRequest.value), ...exported.map((it) => it.value), ...atRunTime];
}

/** The graph of groups of nodes; nodes without a group are left out, with their arrows. */
export function group(graph: Graph, groupOf: (node: string) => string | undefined): Graph {
  const groups = new Map<string, Set<string>>();
  for (const [from, targets] of graph) {
    const own = groupOf(from);
    if (own === undefined) continue;
    const into = groups.getOrInsertComputed(own, () => new Set());
    for (const other of [...targets].map(groupOf)) if (other !== undefined && other !== own) into.add(other);
  }
  return new Map([...groups].sort(byName));
}

export const layerOf = (file: string): string | undefined => (file.includes('/') ? file.split('/')[0] : undefined);

/** A room of a layer: a folder directly below it, with its content, or a file of its own. */
export const roomOf =
  (layer: string) =>
  (file: string): string | undefined => {
    const [first, room, ...rest] = file.split('/');
    if (first !== layer || room === undefined) return undefined;
    return rest.length > 0 ? `${room}/` : room;
  };

export const fileOf =
  (layer: string) =>
  (file: string): string | undefined =>
    layerOf(file) === layer ? file.slice(layer.length + 1) : undefined;

export function shapeOf(graph: Graph): Shape {
  const components = strongComponents(graph);
  const home = new Map(components.flatMap((nodes, at) => nodes.map((node) => [node, at] as const)));
  const heights: number[] = []; // components come after those that they import
  for (const [at, nodes] of components.entries()) {
    const below = nodes.flatMap((node) => [...(graph.get(node) ?? [])]).map((node) => home.get(node) ?? at);
    heights[at] = Math.max(-1, ...below.filter((it) => it !== at).map((it) => heights[it] ?? 0)) + 1;
  }
  const floors: string[][] = [];
  for (const [at, nodes] of components.entries()) (floors[heights[at] ?? 0] ??= []).push(...nodes);
  const arrows = [...graph].flatMap(([from, targets]) => [...targets].map((to) => [from, to] as const));
  return {
    floors: floors.map((nodes) => nodes.sort()),
    circles: components.filter((nodes) => nodes.length > 1).map((nodes) => nodes.sort()),
    upward: arrows.filter(([from, to]) => home.get(from) === home.get(to)),
    arrows: arrows.length,
  };
}

/** Tarjan's algorithm: sets of nodes that reach each other, each after those that it imports. */
function strongComponents(graph: Graph): string[][] {
  const found: string[][] = [];
  const order = new Map<string, number>();
  const open: string[] = [];
  const visit = (node: string): number => {
    const own = order.size;
    order.set(node, own);
    open.push(node);
    let low = own;
    for (const next of graph.get(node) ?? []) {
      if (!order.has(next)) low = Math.min(low, visit(next));
      else if (open.includes(next)) low = Math.min(low, order.get(next) ?? low);
    }
    if (low === own) found.push(open.splice(open.indexOf(node)));
    return low;
  };
  for (const node of graph.keys()) if (!order.has(node)) visit(node);
  return found;
}

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1);
