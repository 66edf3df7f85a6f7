import { type Document, Lexer, LineCounter, parseAllDocuments, type ScalarTag } from 'yaml';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { splitYaml, type YamlChunk } from './yaml-chunks.ts';
import { maxDepth, plainYaml, walkYaml, YamlFault } from './yaml-plain.ts';

/** A YAML document as plain data with line numbers, read as kubectl does (sigs.k8s.io/yaml, go-yaml v2). */
export interface YamlDocument {
  /** Plain JSON data; a key without a value is null. */
  readonly value: unknown;
  /** Line of the value at `path`, or of the nearest existing parent; counted from 1. */
  lineOf(path: readonly (string | number)[]): number;
  /** Line of the key at the end of `path`. */
  lineOfKey(path: readonly (string | number)[]): number;
}

export const maxManifestChars = 4 * 1024 * 1024;
export const maxDocuments = 1000;
/** Limit of tokens. The parser takes some 6 µs and 500 bytes for each. */
export const maxTokens = 500_000;
/** Limit of aliases in one document; the size of their values is limited too. */
export const maxAliases = 25_000;
const maxErrors = 20;

/** Other words for true and false in YAML 1.1, which go-yaml v2 supports. */
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

/**
 * Yields the documents of a text. Errors: `invalid` for text that is too long, too deep or not YAML, has duplicate
 * keys, or aliases that stand for too much, with file and line.
 */
export function* parseYaml(text: string, fileName: string): Generator<YamlDocument> {
  if (text.length > maxManifestChars) {
    throw new PodvmError(
      'invalid',
      `Cannot read ${fileName}: it must have at most ${maxManifestChars} characters, got ${text.length}`,
      { fix: 'Split it into smaller files.' },
    );
  }
  refuseControls(text, fileName);
  const chunks: YamlChunk[] = [];
  for (const chunk of splitYaml(text)) {
    if (chunks.length === maxDocuments) refuse(fileName, chunk.line, `it must have at most ${maxDocuments} documents`);
    chunks.push(chunk);
  }
  let tokens = 0;
  let documents = 0;
  for (const chunk of chunks) {
    tokens += countTokens(chunk, maxTokens - tokens, fileName);
    const lines = new LineCounter();
    for (const document of composeAll(chunk, fileName, lines)) {
      documents += 1;
      if (documents > maxDocuments) refuse(fileName, chunk.line, `it must have at most ${maxDocuments} documents`);
      yield plain(document, fileName, lines, chunk.line);
    }
  }
}

/** Throws an error of kind `invalid`. */
function refuse(fileName: string, line: number, why: string, cause?: unknown): never {
  throw new PodvmError('invalid', `Cannot read ${fileName}:${line}: ${why}`, { cause });
}

/** Characters that are not printable in YAML (1.1, 5.1), as in go-yaml. */
// oxlint-disable-next-line no-control-regex -- matched on purpose
const control = /[\0-\u0008\u000b\u000c\u000e-\u001f\u007f\ud800-\udfff\ufffe\uffff]/u;

function refuseControls(text: string, fileName: string): void {
  const found = control.exec(text);
  if (found === null) return;
  const line = text.slice(0, found.index).split('\n').length;
  const code = found[0].charCodeAt(0).toString(16).padStart(4, '0');
  throw new PodvmError('invalid', `Cannot read ${fileName}:${line}: it has the control character U+${code}`, {
    fix: 'Save the file as UTF-8 text; put binary data into binaryData, as base64.',
  });
}

/** Counts tokens, which is cheap, so that the parser never exceeds its limits. */
function countTokens({ text, line }: YamlChunk, left: number, fileName: string): number {
  let tokens = 0;
  let aliases = 0;
  let offset = 0;
  let depth = 0;
  const here = () => line + text.slice(0, offset).split('\n').length - 1;
  for (const token of new Lexer().lex(text)) {
    tokens += 1;
    if (token.startsWith('*')) aliases += 1;
    if (token === '[' || token === '{') depth += 1;
    if (token === ']' || token === '}') depth -= 1;
    if (depth > maxDepth) refuse(fileName, here(), tooDeep);
    if (aliases > maxAliases)
      refuse(fileName, here(), `the alias ${printable(token, 80)} exceeds the limit of ${maxAliases} aliases`);
    if (tokens > left) refuse(fileName, here(), `it has more than ${maxTokens} tokens: split it`);
    if (!zeroWidth.has(token)) offset += token.length;
  }
  return tokens;
}

const tooDeep = `it is nested deeper than ${maxDepth} levels`;
/** Zero-width tokens of the lexer: a document begins, a scalar follows, a flow collection is unterminated. */
const zeroWidth: ReadonlySet<string> = new Set(['\u0002', '\u001f', '\u0018']);

function composeAll({ text, line }: YamlChunk, fileName: string, lineCounter: LineCounter): Document.Parsed[] {
  const all = compose(text, fileName, line, lineCounter);
  const errors = all.flatMap((document) => document.errors);
  // The parser recurses, and reports excessive depth only in this way.
  const deep = errors.find(({ message }) => /call stack|stack overflow/i.test(message));
  if (deep !== undefined) refuse(fileName, line + lineCounter.linePos(deep.pos[0]).line - 1, tooDeep);
  const isTemplate = text.includes('{{');
  const problems = errors.slice(0, isTemplate ? 1 : maxErrors).map(({ code, message, pos }) => {
    const at = lineCounter.linePos(pos[0]);
    const why = code === 'NON_STRING_KEY' ? 'a key must be a scalar' : printable(message);
    return `${fileName}:${line + at.line - 1}:${at.col}: ${why}`;
  });
  if (problems.length > 0) {
    const fix = isTemplate ? { fix: 'If it is a template, render it first, such as with `helm template`.' } : {};
    throw new PodvmError('invalid', `Cannot read ${fileName}: it is not YAML\n${problems.join('\n')}`, fix);
  }
  return all;
}

function compose(text: string, fileName: string, line: number, lineCounter: LineCounter): Document.Parsed[] {
  try {
    const all = parseAllDocuments(text, {
      lineCounter,
      prettyErrors: false,
      version: '1.2',
      uniqueKeys: false, // quadratic in the parser; `plainYaml` checks instead
      stringKeys: true,
      customTags: (tags) => [oldBoolean, oldOctal, ...tags],
    });
    return 'empty' in all ? [] : all;
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause; // the composer also recurses and may exhaust the stack
    return refuse(fileName, line, tooDeep, cause);
  }
}

function plain(document: Document.Parsed, fileName: string, lines: LineCounter, firstLine: number): YamlDocument {
  const { contents } = document;
  const positionOf = (node: unknown) => {
    const range = isNodeWithRange(node) ? node.range : undefined;
    if (range === undefined) return undefined;
    const { line, col } = lines.linePos(range[0]);
    return { line: firstLine + line - 1, col };
  };
  const at = (node: unknown) => positionOf(node)?.line;
  const first = at(contents) ?? firstLine + lines.linePos(document.range[0]).line - 1;
  try {
    const { value, targets } = plainYaml(contents);
    return {
      value,
      lineOf: (path) => at(walkYaml(contents, path, targets).value) ?? first,
      lineOfKey: (path) => {
        const found = walkYaml(contents, path, targets);
        return at(found.key) ?? at(found.value) ?? first;
      },
    };
  } catch (error) {
    if (!(error instanceof YamlFault)) throw error;
    const where = positionOf(error.node) ?? { line: first, col: 1 };
    throw new PodvmError('invalid', `Cannot read ${fileName}:${where.line}:${where.col}: ${error.message}`);
  }
}

function isNodeWithRange(node: unknown): node is { readonly range: readonly [number, number, number] } {
  return typeof node === 'object' && node !== null && 'range' in node && Array.isArray(node.range);
}
