/** A document of a text, or several that are separated only by YAML's `...`. */
export interface YamlChunk {
  readonly text: string;
  /** Line of its first character in the whole text, counted from 1. */
  readonly line: number;
}

/** Marker of a new document, which may follow a byte order mark where files were joined. */
const marker = /(?<![^\n])---(?![^ \t\r\n])/g;
const lineBegin = /(?<![^\n])\ufeff/g;

/**
 * Splits a text as kubectl does (k8s.io/apimachinery/pkg/util/yaml): at lines that begin with `---`, and between
 * consecutive JSON objects. Each document may begin with a byte order mark; empty ones are skipped.
 */
export function* splitYaml(text: string): Generator<YamlChunk> {
  const clean = text.includes('\ufeff') ? text.replaceAll(lineBegin, '') : text;
  const markers = clean.matchAll(marker);
  let line = 1;
  let start = 0;
  let pending: YamlChunk | undefined;
  for (;;) {
    const next = markers.next().value?.index;
    const own = clean.slice(start, next);
    const chunk: YamlChunk = pending === undefined ? { text: own, line } : { ...pending, text: pending.text + own };
    const kind = kindOf(chunk.text);
    pending = kind === 'directives' ? chunk : undefined;
    if (kind === 'content') yield* splitJson(chunk);
    if (next === undefined) break;
    line += newlinesIn(own);
    start = next;
  }
  if (pending !== undefined) yield pending;
}

/** Classifies a text. Directives (`%YAML 1.2`) belong to the document after them. */
function kindOf(text: string): 'blank' | 'directives' | 'content' {
  let kind: 'blank' | 'directives' = 'blank';
  for (let from = text.startsWith('---') ? 3 : 0; from < text.length;) {
    const end = text.indexOf('\n', from);
    const line = text.slice(from, end < 0 ? undefined : end);
    if (line.startsWith('%')) kind = 'directives';
    else if (!/^[ \t\r]*(?:#|$)/.test(line)) return 'content';
    from = end < 0 ? text.length : end + 1;
  }
  return kind;
}

/** Splits consecutive JSON objects into chunks; other text stays one chunk. */
function splitJson(chunk: YamlChunk): YamlChunk[] {
  const begin = /^(?:---)?\s*/.exec(chunk.text)?.[0].length ?? 0;
  if (chunk.text[begin] !== '{') return [chunk];
  const ends = objectEnds(chunk.text, begin);
  const pieces: YamlChunk[] = [];
  let { line } = chunk;
  let from = 0;
  for (const end of ends) {
    const own = chunk.text.slice(from, end);
    const json = own.replace(/^---/, '');
    if (!isJson(json)) return [chunk];
    // JSON has tabs only between tokens, where YAML forbids some.
    pieces.push({ text: json.replaceAll('\t', ' '), line });
    line += newlinesIn(own);
    from = end;
  }
  return /^\s*$/.test(chunk.text.slice(from)) ? pieces : [chunk];
}

/** Returns the end of each consecutive object. The last ones may be missing if the text is not JSON. */
function objectEnds(text: string, begin: number): number[] {
  const ends: number[] = [];
  let depth = 0;
  let isString = false;
  for (let index = begin; index < text.length; index += 1) {
    const char = text[index];
    if (isString) {
      if (char === '\\') index += 1;
      else if (char === '"') isString = false;
    } else if (char === '"') isString = true;
    else if (char === '{' || char === '[') depth += 1;
    else if (char === '}' || char === ']') {
      depth -= 1;
      if (depth === 0) ends.push(index + 1);
    }
  }
  return ends;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false; // the YAML parser reports the fault
  }
}

function newlinesIn(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) count += 1;
  return count;
}
