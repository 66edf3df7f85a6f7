import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import {
  type Document,
  isAlias,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseAllDocuments,
  type ScalarTag,
  visit,
} from 'yaml';

/** YAML text as plain data that remembers its lines, read the way kubectl reads it (sigs.k8s.io/yaml, go-yaml v2). */
export interface YamlDocument {
  /** Plain JSON data; mappings with `null` as value have lost that entry, as Kubernetes ignores it. */
  readonly value: unknown;
  /** Line of the value at `path`, or of the nearest thing around it that exists; counted from 1. */
  lineOf(path: readonly (string | number)[]): number;
  /** Line of the key at the end of `path`. */
  lineOfKey(path: readonly (string | number)[]): number;
}

export const maxManifestChars = 4 * 1024 * 1024;
export const maxDocuments = 256;
/** Aliases may stand for so many nodes in all ("billion laughs"). */
const maxAliases = 100;
const maxDepth = 64;

type Path = readonly (string | number)[];

/** YAML 1.1's other words for true and false, which go-yaml v2 still knows. */
const oldBoolean: ScalarTag = {
  tag: 'tag:yaml.org,2002:bool',
  default: true,
  test: /^(?:y|Y|yes|Yes|YES|on|On|ON|n|N|no|No|NO|off|Off|OFF)$/,
  resolve: (text) => /^(?:y|on)/i.test(text),
};

/** `0644` is octal for kubectl, as in YAML 1.1. */
const oldOctal: ScalarTag = {
  tag: 'tag:yaml.org,2002:int',
  default: true,
  test: /^[-+]?0[0-7]+$/,
  resolve: (text) => Number.parseInt(text, 8),
};

/** Errors: `invalid` for text that is too long, too deep, no YAML, or has a key twice, with file and line. */
export function parseYaml(text: string, fileName: string): YamlDocument[] {
  if (text.length > maxManifestChars) {
    throw new PodvmError(
      'invalid',
      `Cannot read ${fileName}: it must have at most ${maxManifestChars} characters, got ${text.length}`,
    );
  }
  const lines = new LineCounter();
  const documents = composeAll(text, fileName, lines);
  if (documents.length > maxDocuments) {
    throw new PodvmError('invalid', `Cannot read ${fileName}: it must have at most ${maxDocuments} documents`);
  }
  const problems = documents
    .flatMap((document) => document.errors)
    .map((error) => {
      const { line, col } = lines.linePos(error.pos[0]);
      return `${fileName}:${line}:${col}: ${printable(error.message)}`;
    });
  if (problems.length > 0) {
    throw new PodvmError('invalid', `Cannot read ${fileName}: it is no YAML\n${problems.slice(0, 20).join('\n')}`);
  }
  return documents.map((document) => plain(document, fileName, lines));
}

function composeAll(text: string, fileName: string, lineCounter: LineCounter): Document.Parsed[] {
  try {
    const all = parseAllDocuments(text, {
      lineCounter,
      prettyErrors: false,
      version: '1.2',
      merge: true,
      uniqueKeys: true,
      stringKeys: true,
      customTags: (tags) => [oldBoolean, oldOctal, ...tags],
    });
    return 'empty' in all ? [] : all;
  } catch (cause) {
    // The composer recurses: nesting without end runs out of stack.
    throw new PodvmError('invalid', `Cannot read ${fileName}: it is nested too deep or no YAML`, { cause });
  }
}

function plain(document: Document.Parsed, fileName: string, lines: LineCounter): YamlDocument {
  const at = (node: unknown) => {
    const range = isNodeWithRange(node) ? node.range : undefined;
    return range === undefined ? undefined : lines.linePos(range[0]).line;
  };
  const first = at(document.contents) ?? lines.linePos(document.range[0]).line;
  refuseDepth(document, fileName, lines);
  let value: unknown;
  try {
    value = withoutNulls(document.toJS({ maxAliasCount: maxAliases }));
  } catch (cause) {
    const message = cause instanceof Error ? printable(cause.message) : 'its aliases cannot be resolved';
    throw new PodvmError('invalid', `Cannot read ${fileName}:${first}: ${message}`, { cause });
  }
  return {
    value,
    lineOf: (path) => at(walk(document, path).value) ?? first,
    lineOfKey: (path) => {
      const found = walk(document, path);
      return at(found.key) ?? at(found.value) ?? first;
    },
  };
}

function isNodeWithRange(node: unknown): node is { readonly range: readonly [number, number, number] } {
  return typeof node === 'object' && node !== null && 'range' in node && Array.isArray(node.range);
}

function refuseDepth(document: Document.Parsed, fileName: string, lines: LineCounter): void {
  visit(document, (_key, node, parents) => {
    if (parents.length <= 2 * maxDepth || !isNodeWithRange(node)) return undefined;
    const { line } = lines.linePos(node.range[0]);
    throw new PodvmError('invalid', `Cannot read ${fileName}:${line}: it is nested deeper than ${maxDepth} levels`);
  });
}

/** Follows `path` as far as the document goes; the deepest node found, and its key. */
function walk(document: Document.Parsed, path: Path): { readonly key: unknown; readonly value: unknown } {
  let node: unknown = resolved(document, document.contents);
  let key: unknown;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isPair(item) && isScalar(item.key) && String(item.key.value) === step);
      if (pair === undefined) break;
      key = pair.key;
      if (pair.value === null) break;
      node = resolved(document, pair.value);
    } else if (isSeq(node) && typeof step === 'number' && step < node.items.length) {
      key = undefined;
      node = resolved(document, node.items[step]);
    } else break;
  }
  return { key, value: node };
}

function resolved(document: Document.Parsed, node: unknown): Node | undefined {
  if (isAlias(node)) return node.resolve(document);
  return typeof node === 'object' && node !== null ? (node as Node) : undefined; // SAFE: the parser makes only nodes
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, child]) => child !== null);
  return Object.fromEntries(entries.map(([key, child]) => [key, withoutNulls(child)]));
}
