import { type Alias, isAlias, isMap, isPair, isScalar, isSeq, type Pair, Scalar, type YAMLMap } from 'yaml';
import { printable } from '#base/guest-text.ts';

/** Plain data of a document, with aliases resolved. */
export interface PlainYaml {
  /** Plain JSON data. */
  readonly value: unknown;
  /** Maps aliases to their nodes. */
  readonly targets: ReadonlyMap<unknown, unknown>;
}

/** A fault at a node, which gives the message its line. */
export class YamlFault extends Error {
  readonly node: unknown;

  constructor(node: unknown, message: string) {
    super(message);
    this.node = node;
  }
}

export const maxDepth = 64;
/** Limit of values from all aliases of a document ("billion laughs"). */
export const maxAliasNodes = 50_000;
export const maxAliasChars = 4 * 1024 * 1024;

/** Value of a node, and its size with each alias written out. */
interface Read {
  readonly value: unknown;
  readonly nodes: number;
  readonly chars: number;
  /** Levels below the node; 0 for a scalar. */
  readonly height: number;
}

/** Converts a document. Errors: `YamlFault` for a duplicate key, an undefined alias, and excessive depth or size. */
export function plainYaml(contents: unknown): PlainYaml {
  const reader = new Reader();
  return { value: reader.read(contents, 1).value, targets: reader.targets };
}

class Reader {
  readonly targets = new Map<unknown, unknown>();
  readonly #anchors = new Map<string, { readonly node: unknown; readonly read: Read }>();
  #aliasNodes = 0;
  #aliasChars = 0;

  read(node: unknown, depth: number): Read {
    if (depth > maxDepth) throw new YamlFault(node, `it is nested deeper than ${maxDepth} levels`);
    if (isAlias(node)) return this.#follow(node, depth);
    const read = this.#readOwn(node, depth);
    const anchor = isScalar(node) || isMap(node) || isSeq(node) ? node.anchor : undefined;
    if (anchor !== undefined) this.#anchors.set(anchor, { node, read });
    return read;
  }

  #readOwn(node: unknown, depth: number): Read {
    if (isScalar(node)) {
      const { value } = node;
      return { value, nodes: 1, chars: typeof value === 'string' ? value.length : 1, height: 0 };
    }
    if (isMap(node)) return this.#readMap(node, depth);
    if (!isSeq(node)) return { value: null, nodes: 1, chars: 0, height: 0 };
    const items = node.items.map((item) => this.read(item, depth + 1));
    return { ...sumOf(items), value: items.map((item) => item.value) };
  }

  /** Resolves an alias and counts its size, including that of nested aliases. */
  #follow(alias: Alias, depth: number): Read {
    const found = this.#anchors.get(alias.source);
    if (found === undefined) {
      throw new YamlFault(alias, `the alias *${printable(alias.source, 80)} has no anchor that ends before it`);
    }
    const { node, read } = found;
    this.targets.set(alias, node);
    this.#aliasNodes += read.nodes;
    this.#aliasChars += read.chars;
    const name = printable(alias.source, 80);
    if (depth + read.height > maxDepth) {
      throw new YamlFault(alias, `with the alias *${name} it is nested deeper than ${maxDepth} levels`);
    }
    if (this.#aliasNodes > maxAliasNodes) {
      throw new YamlFault(alias, `with the alias *${name} its aliases stand for more than ${maxAliasNodes} values`);
    }
    if (this.#aliasChars > maxAliasChars) {
      throw new YamlFault(alias, `with the alias *${name} its aliases stand for more than ${maxAliasChars} characters`);
    }
    return read;
  }

  #readMap(map: YAMLMap, depth: number): Read {
    const own = new Map<string, unknown>();
    const merged = new Map<string, unknown>();
    const children: Read[] = [];
    for (const pair of map.items) {
      const child = this.read(pair.value, depth + 1);
      children.push(child);
      if (isMerge(pair)) {
        for (const [key, value] of mergedEntries(pair, child.value)) if (!merged.has(key)) merged.set(key, value);
        continue;
      }
      const key = this.#keyOf(pair, depth);
      children.push({ value: key, nodes: 0, chars: key.length, height: 0 });
      if (own.has(key)) {
        throw new YamlFault(pair.key, `the key ${JSON.stringify(printable(key, 80))} must be unique in its mapping`);
      }
      own.set(key, child.value);
    }
    const value = Object.fromEntries([...[...merged].filter(([key]) => !own.has(key)), ...own]);
    return { ...sumOf(children), value };
  }

  #keyOf(pair: Pair, depth: number): string {
    const { value } = this.read(pair.key, depth);
    const key = keyText(value);
    if (key === undefined) throw new YamlFault(pair.key, 'a key must be a scalar');
    return key;
  }
}

/** Returns the text of a key; "" for an empty key. */
function keyText(value: unknown): string | undefined {
  if (value === null || value === undefined) return '';
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
}

function sumOf(children: readonly Read[]): Omit<Read, 'value'> {
  let [nodes, chars, height] = [1, 0, 0];
  for (const child of children) {
    nodes += child.nodes;
    chars += child.chars;
    height = Math.max(height, child.height + 1);
  }
  return { nodes, chars, height };
}

/** Detects `<<: *defaults` of YAML 1.1, which go-yaml supports. */
export function isMerge(pair: Pair): boolean {
  return isScalar(pair.key) && pair.key.value === '<<' && (pair.key.type ?? Scalar.PLAIN) === Scalar.PLAIN;
}

function mergedEntries(pair: Pair, value: unknown): [string, unknown][] {
  const sources: unknown[] = Array.isArray(value) ? value : [value];
  return sources.flatMap((source) => {
    if (typeof source === 'object' && source !== null && !Array.isArray(source)) return Object.entries(source);
    throw new YamlFault(pair.key, 'a merge (<<) must be of a mapping or a list of mappings');
  });
}

/** Follows `path` as far as the document goes. Returns the deepest node and its key. */
export function walkYaml(
  contents: unknown,
  path: readonly (string | number)[],
  targets: ReadonlyMap<unknown, unknown>,
): { readonly key: unknown; readonly value: unknown } {
  const resolved = (node: unknown) => targets.get(node) ?? node;
  let node = resolved(contents);
  let key: unknown;
  for (const step of path) {
    if (isMap(node)) {
      const pair = pairOf(node, step, resolved);
      if (pair === undefined) break;
      key = pair.key;
      if (pair.value === null) break;
      node = resolved(pair.value);
    } else if (isSeq(node) && typeof step === 'number' && step < node.items.length) {
      key = undefined;
      node = resolved(node.items[step]);
    } else break;
  }
  return { key, value: node };
}

function pairOf(map: YAMLMap, step: string | number, resolved: (node: unknown) => unknown): Pair | undefined {
  const isKey = (item: Pair) => {
    const key = resolved(item.key);
    return isPair(item) && isScalar(key) && keyText(key.value) === step;
  };
  const own = map.items.find(isKey);
  if (own !== undefined) return own;
  const sources = map.items.filter(isMerge).flatMap(({ value }) => {
    const source = resolved(value);
    return isSeq(source) ? source.items.map(resolved) : [source];
  });
  return sources.flatMap((source) => (isMap(source) ? source.items : [])).find(isKey);
}
