import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { guestText } from '#base/guest-text.ts';
import { agentMessageSchema, resultSchemas } from './messages.ts';

/** The part of a valibot schema that this test looks at. */
interface Schema {
  readonly type: string;
  readonly pipe?: readonly { readonly type: string; readonly requirement?: unknown; readonly operation?: unknown }[];
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly options?: readonly (Schema | string)[];
  readonly item?: Schema;
  readonly wrapped?: Schema;
}

const closedTypes = ['number', 'boolean', 'literal', 'picklist'];
/** Each result is parsed again, by the schema of its method. */
const unparsed = ['result.value'];

/** Paths of strings that are neither marked as guest text nor checked against an alphabet of plain characters. */
function freeStrings(schema: Schema, path: string): string[] {
  const { type, pipe = [], entries, options, item, wrapped } = schema;
  if (type === 'string') {
    const isMarked = pipe.some(({ operation }) => operation === guestText);
    return isMarked || pipe.some(({ type, requirement }) => type === 'regex' && isPlain(requirement)) ? [] : [path];
  }
  if (closedTypes.includes(type)) return [];
  if (entries !== undefined)
    return Object.entries(entries).flatMap(([key, each]) => freeStrings(each, `${path}.${key}`));
  if (item !== undefined) return freeStrings(item, `${path}[]`);
  if (wrapped !== undefined) return freeStrings(wrapped, path);
  if (options !== undefined) {
    return options.flatMap((each) => (typeof each === 'string' ? [] : freeStrings(each, nameOf(each) ?? path)));
  }
  return unparsed.includes(path) ? [] : [`${path}: ${type}`];
}

/** The literal that distinguishes an option of a variant from the others. */
function nameOf({ entries }: Schema): string | undefined {
  const literal = (entries?.['t'] ?? entries?.['kind']) as { readonly literal?: unknown } | undefined;
  return typeof literal?.literal === 'string' ? literal.literal : undefined;
}

/** Whether it is anchored at both ends, and refuses what a terminal could interpret. */
const isPlain = (regex: unknown) =>
  regex instanceof RegExp &&
  /^\^.*\$$/.test(regex.source) &&
  !['\n', '\u001b', '\u202e', ' '].some((char) => regex.test(char) || regex.test(`a${char}a`));

test('every string that the host reads from a guest is guest text, or has a fixed set of characters', () => {
  assert.deepEqual(freeStrings(agentMessageSchema as unknown as Schema, 'message'), []);
  for (const [method, schema] of Object.entries(resultSchemas)) {
    assert.deepEqual(freeStrings(schema as unknown as Schema, method), []);
  }
});

test('the test above detects an unrestricted string', () => {
  const free = v.object({ t: v.literal('said'), words: v.optional(v.array(v.object({ text: v.string() }))) });
  assert.deepEqual(freeStrings(free as unknown as Schema, 'said'), ['said.words[].text']);
  const loose = v.object({ name: v.pipe(v.string(), v.regex(/^[^/]*$/)), any: v.unknown() });
  assert.deepEqual(freeStrings(loose as unknown as Schema, 'x'), ['x.name', 'x.any: unknown']);
});
